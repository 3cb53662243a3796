//! One DNS message to one resolver, and its answer: by UDP (RFC 1035, section 4.2.1) or TCP (section 4.2.2). How long that may take is the caller's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::settings::DNS_MESSAGE;

/// The first answer with the query's id that `is_answer` takes: a forged or late one is passed over.
pub(crate) async fn by_udp(
    server: SocketAddr,
    query: &[u8],
    is_answer: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; DNS_MESSAGE];
    loop {
        let length = socket.recv(&mut answer).await?;
        let received = &answer[..length];
        if received.get(..2) == query.get(..2) && is_answer(received) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

/// The answer, whatever it is.
pub(crate) async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

//! One question to the resolvers: by UDP, and by TCP where the answer is too long for that (RFC 7766).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message;
use crate::settings::DNS_MESSAGE;

/// How long a resolver may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all are asked.
const ROUNDS: usize = 2;

/// The answer, under the question's own id; `None` where there is none.
pub(super) async fn exchange(servers: &[SocketAddr], query: &[u8]) -> Option<Bytes> {
    let (query, id) = message::with_id(query, rand::random())?;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask(*server, &query)).await {
            let (answer, _) = message::with_id(&answer, id)?;
            return Some(answer.into());
        }
    }
    None
}

async fn ask(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let answer = by_udp(server, query).await?;
    match message::is_truncated(&answer) {
        true => by_tcp(server, query).await,
        false => Ok(answer),
    }
}

async fn by_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
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
        if received.get(..2) == query.get(..2) && message::answers(received, query) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    match message::answers(&answer, query) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

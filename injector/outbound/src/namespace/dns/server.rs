//! The resolver's sockets: datagrams, a listener, and single streams.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

use super::resolver::Resolver;
use super::transport::Transport;
use crate::namespace::dialer::Dialer;

/// How long a stream may be silent (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(30);

/// How long to wait where the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams.
pub async fn serve_datagrams<D: Dialer>(socket: UdpSocket, resolver: Arc<Resolver<D>>) {
    let socket = Arc::new(socket);
    let mut query = vec![0; 64 * 1024];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut query).await else {
            continue;
        };
        let query = query[..length].to_vec();
        let (socket, resolver) = (socket.clone(), resolver.clone());
        tokio::spawn(async move {
            if let Some(answer) = resolver.answer(&query, Transport::Udp).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// Answers streams.
pub async fn serve_listener<D: Dialer>(listener: TcpListener, resolver: Arc<Resolver<D>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolver = resolver.clone();
                tokio::spawn(async move { serve_stream(stream, &resolver).await });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Answers one stream, query by query (RFC 1035, 4.2.2).
pub async fn serve_stream<D: Dialer>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    resolver: &Resolver<D>,
) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(answer) = resolver.answer(&query, Transport::Tcp).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes()[..], &answer].concat())
            .await?;
    }
}

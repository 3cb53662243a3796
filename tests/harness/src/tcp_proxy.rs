//! A TCP proxy in a pod.
//!
//! It connects to the destination in the first line, so that a test calls as that pod, through its sidecar and with its identity.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Its port in the pod, which the sidecar does not intercept.
pub const PORT: u16 = 7000;

/// Serves forever.
///
/// Each connection names its destination (`ADDRESS:PORT` and a line feed), then is forwarded to it.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // An error is a peer that disconnected.
        tokio::spawn(async move {
            let _ = pipe(stream).await;
        });
    }
}

async fn pipe(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut here = BufStream::new(stream);
    let mut line = String::new();
    here.read_line(&mut line).await?;
    let destination: SocketAddr = line.trim_end().parse().map_err(io::Error::other)?;
    let mut there = TcpStream::connect(destination).await?;
    there.set_nodelay(true)?;
    copy_bidirectional(&mut here, &mut there).await?;
    there.shutdown().await
}

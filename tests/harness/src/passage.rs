//! A way into a cluster: a pod pipes what it is sent to where the first line says, so that a test on the machine calls as that pod, through its sidecar and with its identity.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Where it listens in its pod; the pod's sidecar leaves that port alone.
pub const PORT: u16 = 7000;

/// Serves for ever: each connection names its destination (`ADDRESS:PORT` and a line feed), then it is that destination's.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // An error is one of the two ends that went away.
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

//! Connections to the relay's control port.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to the relay's control port.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// A way to reach the relay's control port.
pub trait Connect: Send + Sync {
    /// Opens one connection.
    fn connect(&self) -> Connecting<'_>;
}

impl<F, R> Connect for F
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = io::Result<Box<dyn Stream>>> + Send + 'static,
{
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self())
    }
}

/// Connects to a control port over TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp(pub std::net::SocketAddr);

impl Connect for Tcp {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = tokio::net::TcpStream::connect(self.0).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

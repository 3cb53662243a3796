//! A client's destination: an address and an authority.
//!
//! For a service inside a cluster, also the pod through which to connect.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower_service::Service;

/// A client's destination.
#[derive(Debug, Clone)]
pub struct Endpoint {
    authority: String,
    addr: SocketAddr,
    beyond: Option<SocketAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self {
            authority: addr.to_string(),
            addr,
            beyond: None,
        }
    }
}

impl Endpoint {
    /// Connects through a pod's sidecar, from the [`crate::tcp_proxy`] in the pod at `tcp_proxy`.
    ///
    /// `destination` is the address as the pod sees it.
    pub fn through(tcp_proxy: SocketAddr, destination: SocketAddr, authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            addr: tcp_proxy,
            beyond: Some(destination),
        }
    }

    /// The host of requests.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same destination with another authority.
    pub fn named(mut self, authority: &str) -> Self {
        self.authority = authority.to_owned();
        self
    }

    /// Opens a connection.
    pub async fn open(&self) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        if let Some(beyond) = self.beyond {
            stream.write_all(format!("{beyond}\n").as_bytes()).await?;
        }
        Ok(stream)
    }
}

/// Gives hyper's client a connection to this destination for any URI.
impl Service<Uri> for Endpoint {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let endpoint = self.clone();
        Box::pin(async move { Ok(TokioIo::new(endpoint.open().await?)) })
    }
}

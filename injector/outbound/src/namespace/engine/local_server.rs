//! The developer's server, wherever it listens: in the namespace, or on the host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::inside::Inside;
use super::published::Published;

/// Connects to the developer's server by its port.
#[derive(Debug, Clone)]
pub struct LocalServer {
    inside: Inside,
    published: Arc<Published>,
}

impl LocalServer {
    /// `published`: ports of the host that lead into the namespace.
    pub fn new(inside: Inside, published: Arc<Published>) -> Self {
        Self { inside, published }
    }

    /// Connects to what listens at `port` of the namespace's loopback, else to the host's.
    ///
    /// # Errors
    /// The namespace's, where neither takes the connection.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let refused = match self.inside.connect(port).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
            other => return other,
        };
        // A published port whose listener has ended a moment ago leads back to where nothing listens.
        if self.published.contains(port) {
            return Err(refused);
        }
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => Ok(stream),
            Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port))
                .await
                .map_err(|_| refused),
        }
    }
}

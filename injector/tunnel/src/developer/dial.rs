//! How the developer's server is reached: on this machine's loopback, until another way is known.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings;

/// A connection that is being opened.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Opens a connection to a port.
type Way = dyn Fn(u16) -> Dialling + Send + Sync;

/// Opens connections to the port of the developer's server. All clones open them in the same way.
#[derive(Clone, Default)]
pub struct Dial(Arc<OnceLock<Box<Way>>>);

impl Dial {
    /// Opens them by `way` from now on; only the first call has an effect. A connection has as long as one address of the loopback has.
    pub fn set(&self, way: impl Fn(u16) -> Dialling + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(way));
    }

    /// Connects, or says why not.
    pub(super) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let stream = match self.0.get() {
            Some(way) => in_time(way(port)).await?,
            None => loopback(port).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dial").finish_non_exhaustive()
    }
}

/// Connects to 127.0.0.1, then to ::1: some programs bind only the latter. Where neither takes the connection, the first one's error.
async fn loopback(port: u16) -> io::Result<TcpStream> {
    match connect_to(Ipv4Addr::LOCALHOST.into(), port).await {
        Ok(stream) => Ok(stream),
        Err(first) => connect_to(Ipv6Addr::LOCALHOST.into(), port)
            .await
            .map_err(|_| first),
    }
}

async fn connect_to(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    in_time(TcpStream::connect(SocketAddr::new(address, port))).await
}

async fn in_time(connecting: impl Future<Output = io::Result<TcpStream>>) -> io::Result<TcpStream> {
    let connected = timeout(settings::LOCAL_CONNECT, connecting).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

//! A proxy on the loopback for one command: SOCKS5 and HTTP on the same port, for those who know its password. Names of the cluster are dialled there, all others from this machine.

mod http;
mod route;
mod shared;
mod socks;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::route::Route;
use self::shared::{GREETING, Password, SOCKS5, Shared, USER};
use crate::client::Client;
use crate::config::ClusterConfig;

/// A running proxy. It ends when it is dropped, and with it all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    password: Password,
    _running: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, with a new password. `config`: what the cluster's end says of its cluster. Needs a runtime.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start(client: Client, config: Arc<ClusterConfig>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let password = Password(format!("{:032x}", rand::random::<u128>()).into());
        let shared = Shared {
            password: password.clone(),
            route: Arc::new(Route::new(client, config)),
        };
        let mut running = JoinSet::new();
        running.spawn(accept(listener, shared));
        Ok(Self {
            address,
            password,
            _running: running,
        })
    }

    /// Its URL, with the password. `scheme`: `http` or `socks5h`.
    pub fn url(&self, scheme: &str) -> String {
        let Self {
            address, password, ..
        } = self;
        format!("{scheme}://{USER}:{}@{address}", password.0)
    }
}

async fn accept(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, shared.clone()));
                }
                // Out of file descriptors: they come back as connections end.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Shared) {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    match timeout(GREETING, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [SOCKS5] => socks::serve(stream, &shared).await,
        Ok(Ok(1)) => http::serve(stream, shared).await,
        // It went away, or says nothing.
        _ => {}
    }
}

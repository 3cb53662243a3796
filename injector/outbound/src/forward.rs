//! A port of this machine that leads to one destination in the cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::client::Client;
use crate::dial::Destination;
use crate::pump::{Passed, pump, reset};

/// A listener on the loopback, and where it leads.
#[derive(Debug)]
pub struct Forward {
    listener: TcpListener,
    address: SocketAddr,
    destination: Destination,
}

impl Forward {
    /// Listens on 127.0.0.1. Nothing is dialled yet.
    ///
    /// # Errors
    /// The port is taken, or may not be had.
    pub async fn bind(port: u16, destination: Destination) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            destination,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Dials for each connection that comes; one that cannot be dialled is reset. Ends when it is dropped.
    pub async fn run(self, client: Client) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, _)) => {
                        connections.spawn(join(tcp, self.destination.clone(), client.clone()));
                    }
                    // Out of file descriptors: they come back as connections end.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        }
    }
}

async fn join(tcp: TcpStream, destination: Destination, client: Client) {
    let _ = tcp.set_nodelay(true);
    match client.dial(&destination).await {
        // How it ended, both sides have seen.
        Ok(connection) => drop(pump(tcp, connection, &Passed::default()).await),
        Err(_) => reset(tcp),
    }
}

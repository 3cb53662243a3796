//! The developer's connection into the cluster as the namespace's way there.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::dialer::Dialer;
use crate::client::Client;
use crate::config::ClusterConfig;
use crate::connection::Connection;
use crate::dial::{Destination, DialError};
use crate::domains::Domains;
use crate::pump::{Passed, pump};

/// Reaches the cluster by a [`Client`].
#[derive(Debug, Clone)]
pub struct ClusterDialer {
    client: Client,
    config: Arc<ClusterConfig>,
}

impl ClusterDialer {
    /// `config`: what the cluster's end says of its cluster, by [`Client::config`]. The names and ranges are those of now: a cluster does not change them.
    pub fn new(client: Client, config: Arc<ClusterConfig>) -> Self {
        Self { client, config }
    }
}

impl Dialer for ClusterDialer {
    type Stream = Connection;

    async fn dial(&self, destination: Destination) -> Result<Connection, DialError> {
        self.client.dial(&destination).await
    }

    async fn transfer(program: TcpStream, stream: Connection) {
        let _ = program.set_nodelay(true);
        // A side that breaks has reset the other.
        let _ = pump(program, stream, &Passed::default()).await;
    }

    async fn resolve(&self, message: Bytes) -> io::Result<Bytes> {
        self.client.dns(message).await.map_err(io::Error::other)
    }

    fn is_cluster(&self, address: IpAddr) -> bool {
        self.config.contains(address)
    }

    fn domains(&self) -> Domains {
        Domains::from(&*self.config)
    }
}

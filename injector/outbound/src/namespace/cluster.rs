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
use crate::mark::Mark;
use crate::pump::{Passed, pump_marked};

/// Reaches the cluster by a [`Client`].
#[derive(Debug, Clone)]
pub struct ClusterDialer {
    client: Client,
    config: Arc<ClusterConfig>,
    mark: Option<Arc<Mark>>,
}

/// A connection into the cluster whose requests may be marked.
#[derive(Debug)]
pub struct MarkedConnection {
    connection: Connection,
    mark: Option<Arc<Mark>>,
}

impl ClusterDialer {
    /// `config`: what the cluster's end says of its cluster, by [`Client::config`]. The names and ranges are those of now: a cluster does not change them.
    pub fn new(client: Client, config: Arc<ClusterConfig>) -> Self {
        Self {
            client,
            config,
            mark: None,
        }
    }

    /// Adds this to the plain HTTP requests of the program.
    pub fn marked(self, mark: Option<Mark>) -> Self {
        let mark = mark.map(Arc::new);
        Self { mark, ..self }
    }
}

impl Dialer for ClusterDialer {
    type Stream = MarkedConnection;

    async fn dial(&self, destination: Destination) -> Result<MarkedConnection, DialError> {
        Ok(MarkedConnection {
            connection: self.client.dial(&destination).await?,
            mark: self.mark.clone(),
        })
    }

    async fn transfer(program: TcpStream, stream: MarkedConnection) {
        let _ = program.set_nodelay(true);
        let MarkedConnection { connection, mark } = stream;
        // A side that breaks has reset the other.
        let _ = pump_marked(program, connection, &Passed::default(), mark).await;
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

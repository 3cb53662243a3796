//! Where a destination is, and the connection to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::net::TcpStream;

use super::published::Published;
use super::transfer::Upstream;
use crate::namespace::address::{DNS_PORT, IPV4, IPV6};
use crate::namespace::dialer::Dialer;
use crate::namespace::learned::Learned;
use crate::{Destination, DialError};

/// Where a destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the cluster.
    Cluster,
    /// In the host's network, its loopback included.
    Host,
    /// It is a resolver, whose questions the namespace's own answers.
    Resolver,
    /// In the namespace itself, where nothing listens.
    Nowhere,
    /// At no single host.
    Group,
}

/// Connects to destinations as programs name them: by address.
#[derive(Debug)]
pub struct Connector<D> {
    dialer: Arc<D>,
    learned: Arc<Learned>,
    published: Arc<Published>,
}

impl<D: Dialer> Connector<D> {
    /// Takes for the cluster's what `dialer` knows or the resolver has `learned`, and never dials a port that is `published`.
    pub fn new(dialer: Arc<D>, learned: Arc<Learned>, published: Arc<Published>) -> Self {
        Self {
            dialer,
            learned,
            published,
        }
    }

    /// Where a destination is.
    pub fn place(&self, to: SocketAddr) -> Place {
        let address = to.ip();
        let is_broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
        let is_own = [IpAddr::from(IPV4), IpAddr::from(IPV6)].contains(&address);
        let is_published = address.is_loopback() && self.published.contains(to.port());
        if address.is_multicast() || is_broadcast {
            Place::Group
        } else if self.learned.contains(address) || self.dialer.is_cluster(address) {
            Place::Cluster
        } else if to.port() == DNS_PORT {
            Place::Resolver
        } else if is_own || is_published {
            Place::Nowhere
        } else {
            Place::Host
        }
    }

    /// Connects.
    pub async fn connect(&self, to: SocketAddr) -> Result<Upstream<D::Stream>, DialError> {
        match self.place(to) {
            Place::Cluster => {
                let stream = self.dialer.dial(Destination::Address(to)).await?;
                Ok(Upstream::Cluster(stream))
            }
            Place::Host => {
                let stream = TcpStream::connect(to).await;
                Ok(Upstream::Host(stream.map_err(|error| dial_error(&error))?))
            }
            Place::Resolver => Ok(Upstream::Resolver),
            Place::Nowhere => Err(DialError::Refused),
            Place::Group => Err(DialError::Unreachable),
        }
    }
}

/// What the host's kernel says of a dial.
fn dial_error(error: &io::Error) -> DialError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => DialError::Refused,
        Some(Errno::ACCESS | Errno::PERM) => DialError::Denied,
        // Too many open files: the SYN is sent again, perhaps to better times.
        Some(Errno::TIMEDOUT | Errno::MFILE | Errno::NFILE | Errno::NOBUFS) => DialError::Timeout,
        _ => DialError::Unreachable,
    }
}

//! Where a destination of a proxy's client is, and the connection to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::client::Client;
use crate::config::ClusterConfig;
use crate::connection::Connection;
use crate::dial::{Destination, DialError};
use crate::domains::Domains;
use crate::pump::{Passed, pump};
use crate::resolve::message::{addresses, query};
use crate::settings::DIAL;

/// How long it is remembered whether the cluster has a name.
const FRESH: Duration = Duration::from_secs(5);
/// Names of which that is remembered.
const NAMES: usize = 4_096;

/// Dials in the cluster, or from this machine.
#[derive(Debug)]
pub(super) struct Route {
    client: Client,
    config: Arc<ClusterConfig>,
    domains: Domains,
    known: Mutex<HashMap<String, (Instant, bool)>>,
}

/// What a client is connected to.
pub(super) enum Upstream {
    /// Something in the cluster.
    Cluster(Connection),
    /// Something in this machine's own network.
    Host(TcpStream),
}

impl Route {
    pub(super) fn new(client: Client, config: Arc<ClusterConfig>) -> Self {
        Self {
            client,
            domains: Domains::from(&*config),
            config,
            known: Mutex::default(),
        }
    }

    /// Connects.
    pub(super) async fn connect(&self, destination: &Destination) -> Result<Upstream, DialError> {
        let in_cluster = match destination {
            Destination::Address(address) => self
                .config
                .contains(address.ip())
                .then(|| destination.clone()),
            Destination::Name(name, port) => self
                .in_cluster(name)
                .await
                .map(|name| Destination::Name(name, *port)),
        };
        match in_cluster {
            Some(destination) => Ok(Upstream::Cluster(self.client.dial(&destination).await?)),
            None => Ok(Upstream::Host(dial(destination).await?)),
        }
    }

    /// The name in the cluster that is meant, as a pod's resolver finds it: short names are looked up in its search list first.
    async fn in_cluster(&self, name: &str) -> Option<String> {
        let bare = name.trim_end_matches('.');
        if bare == "localhost" || bare.ends_with(".localhost") {
            return None;
        }
        if self.domains.contains(bare) {
            return Some(bare.to_owned());
        }
        let dots = bare.matches('.').count();
        if name.ends_with('.') || dots >= self.domains.ndots {
            return None;
        }
        for domain in &self.domains.search {
            let full = format!("{bare}.{}", domain.trim_end_matches('.'));
            if self.is_known(&full).await {
                return Some(full);
            }
        }
        None
    }

    /// Has the cluster's resolver an address for this full name?
    async fn is_known(&self, name: &str) -> bool {
        if let Some((at, is_known)) = self.known().get(name)
            && at.elapsed() < FRESH
        {
            return *is_known;
        }
        let (v4, v6) = tokio::join!(self.has_address(name, false), self.has_address(name, true));
        // What could not be asked is asked again.
        if let (Some(v4), Some(v6)) = (v4, v6) {
            let mut known = self.known();
            if known.len() >= NAMES {
                known.retain(|_, (at, _)| at.elapsed() < FRESH);
            }
            if known.len() < NAMES {
                known.insert(name.to_owned(), (Instant::now(), v4 || v6));
            }
        }
        v4 == Some(true) || v6 == Some(true)
    }

    async fn has_address(&self, name: &str, v6: bool) -> Option<bool> {
        let answer = self.client.dns(query(name, v6)?).await.ok()?;
        Some(!addresses(&answer).is_empty())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// Moves the bytes both ways until the end. `first`: what the client has sent already.
    pub(super) async fn transfer(self, mut client: TcpStream, first: &[u8]) {
        match self {
            // How it ended, both sides have seen.
            Self::Cluster(mut connection) => {
                if connection.write_all(first).await.is_ok() {
                    let _ = pump(client, connection, &Passed::default()).await;
                }
            }
            Self::Host(mut host) => {
                let moved = async {
                    host.write_all(first).await?;
                    copy_bidirectional(&mut client, &mut host).await
                };
                if moved.await.is_err() {
                    let _ = (client.set_zero_linger(), host.set_zero_linger());
                }
            }
        }
    }
}

/// From this machine, with its own resolvers.
async fn dial(destination: &Destination) -> Result<TcpStream, DialError> {
    let connecting = async {
        match destination {
            Destination::Address(address) => TcpStream::connect(address).await,
            Destination::Name(name, port) => {
                let found: Vec<_> = tokio::net::lookup_host((name.as_str(), *port))
                    .await
                    .map_err(|_| DialError::Unknown)?
                    .collect();
                TcpStream::connect(&found[..]).await
            }
        }
        .map_err(DialError::from)
    };
    let stream = timeout(DIAL, connecting).await;
    let stream = stream.unwrap_or(Err(DialError::Timeout))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

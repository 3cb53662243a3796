//! Dials a destination, if the policy allows the address that is dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dial::{Destination, DialError};
use crate::policy::Policy;
use crate::resolve::Resolver;

/// Dials what the policy allows.
pub(super) struct Dialer {
    resolver: Arc<Resolver>,
    policy: Policy,
    /// How long a dial may take.
    within: Duration,
}

/// A dial that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) error: DialError,
    pub(super) address: Option<SocketAddr>,
    /// For the developer, and for the record.
    pub(super) reason: String,
}

impl Failed {
    pub(super) fn denied(reason: impl Into<String>) -> Self {
        Self {
            error: DialError::Denied,
            address: None,
            reason: reason.into(),
        }
    }
}

/// A connection, and the address that was asked for: what a service's address stands for is not shown.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
}

impl Dialer {
    pub(super) fn new(resolver: Resolver, policy: Policy, within: Duration) -> Self {
        Self {
            resolver: Arc::new(resolver),
            policy,
            within,
        }
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Dials, in time; addresses of a name one after the other.
    pub(super) async fn dial(&self, destination: &Destination) -> Result<Dialled, Failed> {
        let deadline = Instant::now() + self.within;
        let candidates = timeout_at(deadline, self.candidates(destination)).await;
        let candidates = candidates.map_err(|_| Failed {
            error: DialError::Unknown,
            address: None,
            reason: "the name could not be resolved in time".to_owned(),
        })??;
        let mut failed = None;
        let mut left = candidates.len();
        for (address, target) in candidates {
            let share = deadline.saturating_duration_since(Instant::now())
                / u32::try_from(left).unwrap_or(1);
            left -= 1;
            match connect(target, share).await {
                Ok(stream) => return Ok(Dialled { stream, address }),
                Err(error) => {
                    failed = Some(Failed {
                        error,
                        address: Some(address),
                        reason: error.to_string(),
                    });
                }
            }
        }
        Err(failed.unwrap_or_else(|| Failed::denied("no address")))
    }

    /// The addresses that may be dialled, each with what is dialled for it. Where none may, the rule that refused the last one.
    async fn candidates(
        &self,
        destination: &Destination,
    ) -> Result<Vec<(SocketAddr, SocketAddr)>, Failed> {
        let (name, addresses) = match destination {
            Destination::Address(address) => (None, vec![*address]),
            Destination::Name(name, port) => {
                let resolved = self.resolver.resolve(name).await.ok_or_else(|| Failed {
                    error: DialError::Unknown,
                    address: None,
                    reason: format!("{name}: no address"),
                })?;
                let addresses = resolved
                    .addresses
                    .iter()
                    .map(|ip| SocketAddr::new(*ip, *port));
                (Some(resolved.name), addresses.collect())
            }
        };
        let mut candidates = Vec::new();
        let mut refused = None;
        for address in addresses {
            if let Some(target) = self.resolver.service_at(address) {
                candidates.push((address, target));
                continue;
            }
            match self
                .policy
                .check(address, name.as_deref(), &self.resolver)
                .await
            {
                Ok(()) => candidates.push((address, address)),
                Err(reason) => {
                    refused = Some(Failed {
                        address: Some(address),
                        ..Failed::denied(reason)
                    });
                }
            }
        }
        match (candidates.is_empty(), refused) {
            (true, Some(refused)) => Err(refused),
            _ => Ok(candidates),
        }
    }
}

async fn connect(target: SocketAddr, within: Duration) -> Result<TcpStream, DialError> {
    let connected = timeout(within, TcpStream::connect(target)).await;
    let stream = connected
        .map_err(|_| DialError::Timeout)?
        .map_err(DialError::from)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

//! What the engine asks of the cluster.

use std::io;
use std::net::IpAddr;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::{Destination, DialError};

/// The way into the cluster.
pub trait Dialer: Send + Sync + 'static {
    /// A connection to something in the cluster. Dropped, it resets the other end.
    type Stream: Send + 'static;

    /// Connects. Returns only once the other end has answered, or its kernel or network has.
    ///
    /// An error becomes what the program sees: [`DialError::Timeout`] is no answer at all, so that the program's own time-out strikes.
    fn dial(
        &self,
        destination: Destination,
    ) -> impl Future<Output = Result<Self::Stream, DialError>> + Send;

    /// Moves the bytes between a program and what it is connected to, until both directions have ended or one is reset.
    ///
    /// The end of a direction and a reset are passed on, and what came before a reset arrives before it. [`copy_both`](super::copy_both) does that for streams of tokio.
    fn transfer(program: TcpStream, stream: Self::Stream) -> impl Future<Output = ()> + Send;

    /// Asks the cluster's resolver: one DNS message (RFC 1035) without a length, and its answer.
    fn resolve(&self, message: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Is this an address of the cluster? Those in the resolver's answers need not be known to it.
    fn is_cluster(&self, address: IpAddr) -> bool;

    /// Which names the cluster's resolver is asked for.
    fn domains(&self) -> Domains;
}

/// The names of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domains {
    /// The domain of the cluster, such as `cluster.local`.
    pub cluster: String,
    /// What a pod's `resolv.conf` searches, in its order.
    pub search: Vec<String>,
    /// Names with fewer dots are looked up in the search list first.
    pub ndots: usize,
}

impl Domains {
    /// Is this a name of the cluster? `name` is lower-case and has no final dot.
    pub fn contains(&self, name: &str) -> bool {
        let is_below = |domain: &str| {
            let domain = domain.trim_end_matches('.');
            let rest = name.strip_suffix(domain);
            !domain.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        // `postgres.shop.svc` without the cluster's domain is a name of the cluster, too.
        is_below(&self.cluster) || is_below("svc") || self.search.iter().any(|d| is_below(d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_domains() {
        let domains = Domains {
            cluster: "cluster.local".to_owned(),
            search: vec![
                "shop.svc.cluster.local".to_owned(),
                "Corp.example.".to_lowercase(),
                String::new(),
            ],
            ndots: 5,
        };
        for name in [
            "cluster.local",
            "a.cluster.local",
            "redis.shop.svc",
            "x.corp.example",
        ] {
            assert!(domains.contains(name), "{name}");
        }
        for name in ["", "redis", "mycluster.local", "example.org", "svc.example"] {
            assert!(!domains.contains(name), "{name}");
        }
    }
}

//! Accepts the connections that the rules capture, and joins each to what it wants to reach.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::connector::Connector;
use super::pending::Pending;
use super::splice::Pipes;
use super::transfer::{Upstream, transfer_plain};
use crate::namespace::dialer::Dialer;
use crate::namespace::dns::{Resolver, serve_stream};
use crate::namespace::queue::Ends;

/// How long to wait where the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// What a captured connection needs.
#[derive(Debug)]
pub struct Capture<D: Dialer> {
    /// Dials.
    pub connector: Arc<Connector<D>>,
    /// What was dialled while the SYN waited.
    pub pending: Arc<Pending<D::Stream>>,
    /// Answers what goes to a resolver.
    pub resolver: Arc<Resolver<D>>,
    /// For bulk.
    pub pipes: Pipes,
}

impl<D: Dialer> Capture<D> {
    /// Accepts for ever.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((program, source)) => {
                    // "Every address is local": this end is what the program has dialled.
                    let Ok(destination) = program.local_addr() else {
                        continue;
                    };
                    let ends = Ends {
                        source,
                        destination,
                    };
                    tokio::spawn(self.clone().join(program, ends));
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn join(self: Arc<Self>, program: TcpStream, ends: Ends) {
        let upstream = match self.pending.take(ends) {
            Some(upstream) => Ok(upstream),
            // Nothing has held its SYN.
            None => self.connector.connect(ends.destination).await,
        };
        match upstream {
            Ok(Upstream::Host(host)) => transfer_plain(program, host, &self.pipes).await,
            Ok(Upstream::Cluster(stream)) => D::transfer(program, stream).await,
            Ok(Upstream::Resolver) => {
                let _ = serve_stream(program, &self.resolver).await;
            }
            // A reset is all that is left to say it.
            Err(_) => {
                let _ = program.set_zero_linger();
            }
        }
    }
}

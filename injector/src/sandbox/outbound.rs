//! The sandbox's endpoint for connections from developer machines.
//!
//! Allows only the service `inventory`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use intercept_outbound::server::{DialRecord, Limits, Options, serve};
use intercept_outbound::{
    ABSENCE, ClusterConfig, DIAL, Policy, RECHECK, ResolvConf, Resolver, SERVICE_RANGE, Service,
    Tempo,
};
use intercept_tunnel::relay_end::RelayEnd;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::outbound::RelayGate;

/// Name and port of the second demo service.
pub const INVENTORY: (&str, u16) = ("inventory", 80);

/// The DNS domain of the sandbox.
const DOMAIN: &str = "sandbox";

/// Serves forever. `inventory` is the address of that service.
pub async fn run(
    listener: TcpListener,
    relay: SocketAddr,
    inventory: SocketAddr,
    audit: mpsc::Sender<DialRecord>,
) -> io::Result<()> {
    let conf = ResolvConf {
        search: vec![DOMAIN.to_owned()],
        ndots: 5,
        ..ResolvConf::default()
    };
    let options = Options {
        gate: Arc::new(RelayGate::new(vec![RelayEnd::tcp(relay)])),
        config: ClusterConfig {
            domain: DOMAIN.to_owned(),
            search: conf.search.clone(),
            ndots: conf.ndots,
            ranges: vec![SERVICE_RANGE.into()],
        },
        resolver: Resolver::new(
            conf,
            vec![Service {
                name: INVENTORY.0.to_owned(),
                port: INVENTORY.1,
                target: inventory,
            }],
        ),
        policy: Policy::default(),
        limits: Limits::default(),
        tempo: Tempo::default(),
        dial: DIAL,
        grace: Duration::ZERO,
        recheck: RECHECK,
        absence: ABSENCE,
        audit,
    };
    serve(listener, options, std::future::pending()).await
}

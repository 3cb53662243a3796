//! Flags of `injector outbound`.

use std::net::SocketAddr;

use clap::Args;
use intercept_outbound::Rule;

/// Run the in-cluster end of connections from developer machines
#[derive(Debug, Args)]
#[command(after_help = "\
A developer with a tunnel that is up at the relay may connect to what --to allows, and to nothing without it.
Loopback, link-local, multicast and this program's own addresses are never dialled.
Each dial is one line of JSON on stdout; /metrics and /healthz are on the same port.

Example:
  injector outbound --listen 127.0.0.1:7072 --relay 127.0.0.1:7070 --to 10.0.0.0/8:5432 --to redis.internal:6379")]
pub struct Outbound {
    /// Where developer machines connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7072")]
    pub listen: SocketAddr,
    /// Control port of a relay at which their tunnels end: ADDR:PORT or NAME:PORT (repeat)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    pub relay: Vec<String>,
    /// What may be dialled: an address, a range, a name or a domain, and perhaps :PORT (repeat):
    /// 10.0.0.0/8:5432, redis.internal:6379, *.shop.svc.cluster.local
    #[arg(long, value_name = "HOST[:PORT]")]
    pub to: Vec<Rule>,
    /// What may not be dialled, whatever --to allows (repeat)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub never: Vec<Rule>,
    /// Range of the cluster's addresses: others are not dialled (repeat) [default: any]
    #[arg(long, value_name = "RANGE")]
    pub range: Vec<String>,
    /// A name that only developer machines know, and what is dialled for it, on this machine too (repeat)
    #[arg(long, value_name = "NAME:PORT=ADDR:PORT")]
    pub service: Vec<String>,
    /// DNS domain of the cluster [default: as the search list of /etc/resolv.conf says]
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Connections that one developer may have open, and dial at once
    #[arg(long, value_name = "N", default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub connections: u32,
    /// Dials that one developer may make in a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub dials: u32,
    /// MiB from the cluster that may wait to be sent to one developer
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=2_048))]
    pub memory: u32,
}

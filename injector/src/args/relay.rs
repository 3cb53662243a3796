//! Flags of `injector relay`.

use std::net::SocketAddr;

use clap::Args;

/// Run the in-cluster end of the tunnels
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  injector relay --listen 0.0.0.0:8080 --listen 0.0.0.0:8081 --control 127.0.0.1:7070"
)]
pub struct Relay {
    /// Where requests of the mesh come in, HTTP/1.1 and h2c (repeat)
    #[arg(long, value_name = "ADDR", default_values = ["0.0.0.0:8080", "0.0.0.0:8081"])]
    pub listen: Vec<SocketAddr>,
    /// Where developer machines open tunnels, and where metrics are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub control: SocketAddr,
    /// Where `injector outbound` asks whether a tunnel is up; nothing else is answered there [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub presence: Option<SocketAddr>,
}

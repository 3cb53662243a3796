//! Flags of `injector module-server`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Hand the filter to the sidecars of a mesh: a file over HTTP, and nothing else
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  injector module-server --listen 0.0.0.0:8000 --file /filter.wasm"
)]
pub struct ModuleServer {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// The filter, filter.wasm; read once
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

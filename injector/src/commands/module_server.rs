//! `injector module-server`: hands the filter to sidecars until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Global;
use crate::hint::{Failure, OrHint, Result};
use crate::module_server::{PATH, Served, serve};

/// Hand the filter to the sidecars of a mesh: a file over HTTP, and nothing else
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  injector module-server --listen 0.0.0.0:8000 --file /filter.wasm"
)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// The filter, filter.wasm; read once
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let what = format!("--file {}", args.file.display());
    let bytes =
        std::fs::read(&args.file).or_hint(&what, "make build, then --file target/filter.wasm")?;
    if !bytes.starts_with(b"\0asm") {
        return Err(Failure::failed(
            format!("{what}: not a WebAssembly module"),
            "make build, then --file target/filter.wasm",
        ));
    }
    let hint = "injector module-server --help";
    let mut terminate = signal(SignalKind::terminate()).or_hint("signals", hint)?;
    let listener = TcpListener::bind(args.listen).await.or_hint(
        format_args!("--listen {}", args.listen),
        "choose a free one: --listen 127.0.0.1:0",
    )?;
    let served = Served::new(bytes);
    if !global.quiet {
        let address = listener.local_addr().or_hint("--listen", hint)?;
        eprintln!("http://{address}{PATH} sha256:{}", served.sha256());
    }
    serve(listener, served, async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .await;
    Ok(())
}

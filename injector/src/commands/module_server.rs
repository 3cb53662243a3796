//! `injector module-server`: serves the filter to sidecars until a signal ends it.

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, ModuleServer};
use crate::error::{CliError, OrHint, Result};
use crate::module_server::{PATH, Served, serve};

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(global: &Global, args: &ModuleServer) -> Result<()> {
    let what = format!("--file {}", args.file.display());
    let bytes =
        std::fs::read(&args.file).or_hint(&what, "make build, then --file target/filter.wasm")?;
    if !bytes.starts_with(b"\0asm") {
        return Err(CliError::failed(
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

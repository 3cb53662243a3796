//! `injector relay`: the in-cluster end of the tunnels, until it is told to stop.

use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Global, Relay};
use crate::hint::{OrHint, Result};
use crate::tunnel::relay::{Options, serve};

/// Serves until SIGTERM or Ctrl-C, then lets running requests end.
pub async fn run(global: &Global, flags: &Relay) -> Result<()> {
    let hint = "injector relay --help";
    take_all_descriptors();
    let mut terminate = signal(SignalKind::terminate()).or_hint("signals", hint)?;
    let mut data = Vec::new();
    for address in &flags.listen {
        data.push(bind("--listen", *address).await?);
    }
    let control = bind("--control", flags.control).await?;
    if !global.quiet {
        for listener in &data {
            eprintln!(
                "data on {}",
                listener.local_addr().or_hint("--listen", hint)?
            );
        }
        eprintln!(
            "control on {}",
            control.local_addr().or_hint("--control", hint)?
        );
    }
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    serve(data, control, Options::default(), stopped)
        .await
        .or_hint("relay", hint)
}

/// A thousand tunnels and the connections of Envoys need more than the 1 024 file descriptors that container runtimes start with, below a far higher limit
/// that every program may go up to. A relay that may not serves what it can.
fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.or_hint(
        format_args!("{flag} {address}"),
        format!("choose a free one: injector relay {flag} 127.0.0.1:0"),
    )
}

//! `injector relay`: the in-cluster end of the tunnels, until it is told to stop.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Global, Relay};
use crate::hint::{OrHint, Result};
use crate::tunnel::relay::{Options, serve};

/// Serves until SIGTERM or Ctrl-C, then lets running requests end.
pub async fn run(global: &Global, flags: &Relay) -> Result<()> {
    let hint = "injector relay --help";
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

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.or_hint(
        format_args!("{flag} {address}"),
        format!("choose a free one: injector relay {flag} 127.0.0.1:0"),
    )
}

//! `injector relay`: the in-cluster end of the tunnels; runs until a signal ends it.

use std::io;
use std::net::SocketAddr;

use intercept_tunnel::relay::{Options, serve};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, Relay};
use crate::error::{OrHint, Result};

/// Where listeners are at most: the kernel's table of descriptors is as long as the highest one.
const HIGHEST: u64 = 1 << 16;
/// Room for them.
const LISTENERS: u64 = 64;

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
    let presence = match flags.presence {
        Some(address) => Some(bind("--presence", address).await?),
        None => None,
    };
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
        if let Some(presence) = &presence {
            eprintln!(
                "presence on {}",
                presence.local_addr().or_hint("--presence", hint)?
            );
        }
    }
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    serve(data, control, presence, Options::default(), stopped)
        .await
        .or_hint("relay", hint)
}

/// A thousand tunnels and the connections of Envoys need more than the 1 024 file descriptors that container runtimes start with, below a far higher limit
/// that every program may go up to. A relay that may not serves what it can.
pub(super) fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.and_then(close_first).or_hint(
        format_args!("{flag} {address}"),
        format!("choose a free one: injector relay {flag} 127.0.0.1:0"),
    )
}

/// Moves a listener above the descriptors of all connections. What a killed program had open, Linux closes from the highest number down; a listener that goes last still
/// takes connections for a moment, and a request on such a one is lost, where a refused connection is a fallback. Where no such number may be had (macOS allows fewer than it
/// says), it stays where it is.
fn close_first(listener: TcpListener) -> io::Result<TcpListener> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(HIGHEST);
    let above = limit.min(HIGHEST).saturating_sub(LISTENERS);
    match fcntl_dupfd_cloexec(&listener, i32::try_from(above).unwrap_or_default()) {
        Ok(high) => TcpListener::from_std(high.into()),
        Err(_) => Ok(listener),
    }
}

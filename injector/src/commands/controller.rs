//! `injector controller`: writes accepted Intercepts into the mesh until a signal ends it.

use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, connect};
use crate::error::{OrHint, Result};

/// Runs until SIGTERM or Ctrl-C.
pub async fn run(global: &Global) -> Result<()> {
    let hint = "injector controller --help";
    let mut terminate = signal(SignalKind::terminate()).or_hint("signals", hint)?;
    let cluster = connect(global).await?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Ok(intercept_controller::run(&cluster, global.log(), stop).await?)
}

//! A tunnel of its own for a command that intercepts nothing: what it proves is that its developer may open tunnels.

use intercept_tunnel::Secret;
use intercept_tunnel::developer::{self, Developer, Event, Local, LocalProtocol, TunnelError};
use intercept_tunnel::relay_end::RelayEnd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use crate::error::{CliError, Result};

/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A tunnel that no intercept leads to. It ends when it is dropped.
#[derive(Debug)]
pub struct Registration {
    /// Proves it.
    pub secret: Secret,
    keeper: JoinHandle<Result<(), TunnelError>>,
}

impl Registration {
    /// Opens one under this name.
    ///
    /// # Errors
    /// Where the relay cannot be reached, or refuses.
    pub async fn open(relay: &RelayEnd, name: &str) -> Result<Self> {
        let secret = Secret::random();
        // Nothing is listed under its address, and nothing listens there.
        let local = Local {
            port: 0,
            protocol: LocalProtocol::Auto,
        };
        let developer = Developer::new(name, secret.clone(), local);
        let (events_tx, mut events) = mpsc::channel(16);
        let keeper = tokio::spawn(developer::run(
            developer,
            relay.clone(),
            events_tx,
            std::future::pending(),
        ));
        let registration = Self { secret, keeper };
        let mut last = "no answer".to_owned();
        let up = async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Up { .. } => return true,
                    Event::Away { reason, .. } => last = reason,
                    _ => {}
                }
            }
            false
        };
        if timeout(PATIENCE, up).await != Ok(true) {
            return Err(CliError::failed(
                format_args!("relay {relay}: no tunnel could be opened: {last}"),
                relay.hint(),
            ));
        }
        // The task that keeps it open waits for its events to be read.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(registration)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

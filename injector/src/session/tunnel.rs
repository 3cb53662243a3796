//! The session's view of its tunnel.
//!
//! Opened in the background, observed through events, closed once its requests have ended.

use std::time::Duration;

use intercept_tunnel::Secret;
use intercept_tunnel::developer::{self, Developer, Dial, Event, Local, TunnelError, UnderWay};
use intercept_tunnel::relay_end::RelayEnd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{CliError, Result};
use crate::model::Plan;

/// How long running requests may take to end when the intercept ends.
pub const GRACE: Duration = Duration::from_secs(5);

/// Events that wait to be printed.
///
/// A paused terminal must not hold up requests, so further ones are dropped.
const LINES: usize = 1_024;

/// Places in that queue that request lines leave to state changes of the tunnel.
const RESERVED: usize = 16;

/// A tunnel that reconnects until it is closed.
#[derive(Debug)]
pub struct Tunnel {
    /// tunnel → session: what happened on it.
    events_rx: mpsc::Receiver<Event>,
    shutdown_tx: Option<oneshot::Sender<()>>,
    keeper: JoinHandle<Result<(), TunnelError>>,
    under_way: UnderWay,
}

/// Why the tunnel could not be opened.
#[derive(Debug)]
pub enum NotUp {
    /// This relay is full at the moment; another one may have room. Attempts continue.
    Full(CliError),
    /// Any other reason.
    Failed(CliError),
}

impl Tunnel {
    /// Begins to open it. Needs a runtime.
    ///
    /// `dial`: the way to the developer's server; `lines`: whether requests are events.
    pub fn open(plan: &Plan, secret: Secret, dial: &Dial, lines: bool) -> Self {
        let local = Local {
            port: plan.developer_port,
            protocol: plan.protocol,
        };
        let mut developer = Developer::new(plan.name.as_str(), secret, local);
        // See [`Self::close`].
        developer.grace = 2 * GRACE;
        developer.dial = dial.clone();
        developer.reports_requests = lines;
        developer.identity.clone_from(&plan.place.identity);
        let under_way = developer.under_way.clone();
        let (all_tx, all_rx) = mpsc::channel(RESERVED);
        let (events_tx, events_rx) = mpsc::channel(LINES);
        let (shutdown_tx, shutdown_rx) = oneshot::channel::<()>();
        tokio::spawn(pass_on(all_rx, events_tx));
        let shutdown = async {
            let _ = shutdown_rx.await;
        };
        let keeper = tokio::spawn(developer::run(
            developer,
            plan.place.relay.clone(),
            all_tx,
            shutdown,
        ));
        Self {
            events_rx,
            shutdown_tx: Some(shutdown_tx),
            keeper,
            under_way,
        }
    }

    /// Waits until the tunnel is up for the first time.
    pub async fn first_up(&mut self, relay: &RelayEnd, patience: Duration) -> Result<(), NotUp> {
        let (mut why, mut is_full) = ("no answer".to_owned(), false);
        let up = async {
            loop {
                match self.next().await {
                    Ok(Event::Up { .. }) => return Ok(()),
                    Ok(Event::Full) => is_full = true,
                    Ok(Event::Away { reason, .. }) if is_full => return Err(reason),
                    Ok(Event::Away { reason, .. }) => why = reason,
                    Ok(Event::Request(_) | Event::Replaced) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let reason = match timeout(patience, up).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => why,
        };
        let failure = CliError::failed(
            format!("relay {relay}: no tunnel could be opened: {reason}"),
            relay.hint(),
        );
        Err(match is_full {
            true => NotUp::Full(failure),
            false => NotUp::Failed(failure),
        })
    }

    /// The next event; an error if the tunnel has given up.
    pub async fn next(&mut self) -> Result<Event, String> {
        match self.events_rx.recv().await {
            Some(event) => Ok(event),
            None => Err(self.ended().await),
        }
    }

    async fn ended(&mut self) -> String {
        match (&mut self.keeper).await {
            Ok(Ok(())) => "closed".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// The number of running requests.
    pub fn under_way(&self) -> usize {
        self.under_way.count()
    }

    /// Accepts no new requests, and waits at most [`GRACE`] for the running ones to end.
    ///
    /// Passes events of that time to `on_event`. Returns how many requests were cut off.
    pub async fn close(&mut self, on_event: impl Fn(Event)) -> usize {
        if let Some(shutdown_tx) = self.shutdown_tx.take() {
            // Fails if the tunnel has ended by itself.
            let _ = shutdown_tx.send(());
        }
        let _ = timeout(GRACE, self.drain(on_event)).await;
        let cut = self.under_way();
        self.abort().await;
        cut
    }

    async fn drain(&mut self, on_event: impl Fn(Event)) {
        while !self.keeper.is_finished() {
            tokio::select! {
                Some(event) = self.events_rx.recv() => on_event(event),
                _ = &mut self.keeper => {}
            }
        }
    }

    /// Closes the tunnel at once.
    pub async fn abort(&mut self) {
        if !self.keeper.is_finished() {
            self.keeper.abort();
            let _ = (&mut self.keeper).await;
        }
    }
}

#[cfg(test)]
impl Tunnel {
    /// A tunnel that never ends, with events sent by the test.
    pub fn of_events(most: usize) -> (mpsc::Sender<Event>, Self) {
        let (events_tx, events_rx) = mpsc::channel(most);
        let tunnel = Self {
            events_rx,
            shutdown_tx: None,
            keeper: tokio::spawn(std::future::pending()),
            under_way: UnderWay::default(),
        };
        (events_tx, tunnel)
    }
}

async fn pass_on(mut all_rx: mpsc::Receiver<Event>, events_tx: mpsc::Sender<Event>) {
    while let Some(event) = all_rx.recv().await {
        if !matches!(event, Event::Request(_)) || events_tx.capacity() > RESERVED {
            // Even the reserved places are taken, and no output is read: drop the event.
            let _ = events_tx.try_send(event);
        }
    }
}

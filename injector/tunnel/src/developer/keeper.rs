//! Keeps a developer machine connected: opens one tunnel after the other, with exponential backoff.
//!
//! Knows nothing of the requests.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::session::{News, Session, Station};
use super::{Connect, Developer, Event, TunnelError};
use crate::protocol::{self, Hello, OpenError};
use crate::pulse::Signal;

/// Timeout from dialling to the relay's signal that the tunnel is registered.
const OPENING: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// After this lifetime, a lost tunnel resets the backoff.
const SETTLED: Duration = Duration::from_secs(5);

/// A developer machine and its tunnels: usually one, two while the relay or the connection changes.
pub(super) struct Keeper {
    hello: Hello,
    station: Station,
    serving: JoinSet<()>,
    session: Option<Session>,
    retry: Duration,
}

enum Failed {
    ForNow(String),
    Full(String),
    ForGood(TunnelError),
}

impl Keeper {
    /// Creates a keeper without a tunnel.
    ///
    /// # Errors
    /// The name is not a valid header value.
    pub(super) fn new(
        developer: Developer,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, TunnelError> {
        let Developer {
            name,
            secret,
            local,
            dial,
            identity,
            replace,
            reports_requests,
            under_way,
            tempo,
            ..
        } = developer;
        let is_plain = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let value = HeaderValue::from_str(&name).ok().filter(|_| is_plain);
        let value = value.ok_or_else(|| TunnelError::InvalidName { name: name.clone() })?;
        let instance = uuid::Uuid::new_v4().to_string();
        Ok(Self {
            hello: Hello {
                secret,
                name,
                identity,
                instance,
                replace,
            },
            station: Station {
                local,
                dial,
                name: value,
                leaving: Arc::new(AtomicBool::new(false)),
                reports_requests,
                under_way,
                tempo,
                events,
            },
            serving: JoinSet::new(),
            session: None,
            retry: FIRST_RETRY,
        })
    }

    /// Opens tunnels one after the other, each before the previous one is left.
    pub(super) async fn keep(&mut self, connect: &impl Connect) -> TunnelError {
        loop {
            match timeout(OPENING, self.open(connect))
                .await
                .unwrap_or_else(|_| Err(Failed::ForNow("the relay does not answer".to_owned())))
            {
                Ok((session, relay_version)) => {
                    if let Some(before) = self.session.replace(session) {
                        before.leave();
                    }
                    self.tell(Event::Up { relay_version }).await;
                }
                Err(Failed::ForGood(error)) => return error,
                Err(Failed::ForNow(reason)) => {
                    self.wait(reason).await;
                    continue;
                }
                Err(Failed::Full(reason)) => {
                    self.tell(Event::Full).await;
                    self.wait(reason).await;
                    continue;
                }
            }
            let opened = Instant::now();
            let ended = self.watch().await;
            if opened.elapsed() >= SETTLED {
                self.retry = FIRST_RETRY;
            }
            match ended {
                Ok(()) => {}
                Err(Failed::ForNow(reason) | Failed::Full(reason)) => self.wait(reason).await,
                Err(Failed::ForGood(error)) => return error,
            }
        }
    }

    async fn open(&mut self, connect: &impl Connect) -> Result<(Session, String), Failed> {
        while self.serving.try_join_next().is_some() {}
        let stream = connect
            .connect()
            .await
            .map_err(|error| Failed::ForNow(format!("the relay cannot be reached: {error}")))?;
        let (upgraded, welcome) = protocol::open(stream, &self.hello).await?;
        let mut session = Session::start(upgraded, &self.station, &mut self.serving);
        loop {
            match session.news().await {
                News::Signal(Signal::Registered) => return Ok((session, welcome.relay_version)),
                News::Signal(_) => {}
                News::Ended(reason) => return Err(Failed::ForNow(reason)),
            }
        }
    }

    /// Watches the tunnel until another one is needed.
    ///
    /// At once if the relay is leaving, since this tunnel still serves meanwhile.
    async fn watch(&mut self) -> Result<(), Failed> {
        while let Some(session) = &mut self.session {
            match session.news().await {
                News::Signal(Signal::Registered) => {}
                News::Signal(Signal::RelayLeaving) => return Ok(()),
                News::Signal(Signal::Replaced) => {
                    self.tell(Event::Replaced).await;
                    return Err(Failed::ForGood(TunnelError::Replaced {
                        name: self.hello.name.clone(),
                    }));
                }
                News::Ended(reason) => {
                    self.session = None;
                    return Err(Failed::ForNow(reason));
                }
            }
        }
        Ok(())
    }

    /// Waits before the next attempt, with exponential backoff and jitter.
    ///
    /// Machines that lost their tunnels together must not retry together.
    async fn wait(&mut self, reason: String) {
        let retry_in = self.retry.mul_f64(rand::random_range(0.5..1.0));
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.tell(Event::Away { reason, retry_in }).await;
        sleep(retry_in).await;
    }

    async fn tell(&self, event: Event) {
        // A closed channel is no reason to stop serving.
        let _ = self.station.events.send(event).await;
    }

    /// Accepts no new requests, and waits up to `grace` for the running ones.
    pub(super) async fn leave(mut self, grace: Duration) {
        self.station.leaving.store(true, Ordering::Relaxed);
        if let Some(session) = self.session.take() {
            session.leave();
        }
        let mut all_ended = pin!(async { while self.serving.join_next().await.is_some() {} });
        let _ = timeout(grace, all_ended.as_mut()).await;
    }
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Refused(refusal) if !refusal.retry => Self::ForGood(TunnelError::Refused {
                status: refusal.status.as_u16(),
                reason: refusal.reason,
            }),
            OpenError::Refused(ref refusal) if refusal.is_full() => Self::Full(error.to_string()),
            other => Self::ForNow(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::Secret;
    use crate::developer::{Local, LocalProtocol, run};

    /// The pauses of the first attempts against a relay that is always unreachable.
    async fn waits(attempts: usize) -> Vec<Duration> {
        let (events_tx, mut events) = mpsc::channel(1);
        let nowhere = || async { Err(io::ErrorKind::ConnectionRefused.into()) };
        let local = Local {
            port: 1,
            protocol: LocalProtocol::Auto,
        };
        tokio::spawn(run(
            Developer::new("a", Secret::random(), local),
            nowhere,
            events_tx,
            std::future::pending(),
        ));
        let mut waits = Vec::new();
        while waits.len() < attempts {
            if let Some(Event::Away { retry_in, .. }) = events.recv().await {
                waits.push(retry_in);
            }
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_with_jitter() {
        let mut longest = FIRST_RETRY;
        for wait in waits(12).await {
            assert!(
                (longest / 2..=longest).contains(&wait),
                "{wait:?} of {longest:?}"
            );
            longest = (longest * 2).min(LAST_RETRY);
        }
        assert_eq!(longest, LAST_RETRY);
    }

    #[tokio::test(start_paused = true)]
    async fn two_machines_do_not_wait_alike() {
        assert_ne!(waits(3).await, waits(3).await);
    }
}

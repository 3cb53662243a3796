//! The developer machine's end: dials out to the relay, serves what comes through the tunnel from the developer's own server, and comes back whenever the
//! tunnel is lost, for as long as it lives.

mod hold;
mod local;
mod serve;
mod session;
mod switch;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use http::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use super::marks::Unavailable;
pub use local::{Local, LocalProtocol};

use super::Secret;
use super::protocol::{self, Hello, OpenError};
use super::pulse::Signal;
use session::{News, Session, Station};

/// What a developer machine offers.
#[derive(Clone, Debug)]
pub struct Developer {
    /// The intercept's name; answers carry it as `x-intercept-served-by`.
    pub name: String,
    /// Proves the right to the tunnel's address.
    pub secret: Secret,
    /// The developer's server.
    pub local: Local,
    /// The SPIFFE identity of the only workload that may use the tunnel; everybody who reaches the relay without one.
    pub identity: Option<String>,
    /// Take the address from another running program that holds it.
    pub replace: bool,
    /// How long running requests may go on after the shutdown began.
    pub grace: Duration,
}

impl Developer {
    /// A developer machine that serves anybody who reaches the relay, replaces nobody, and gives running requests ten seconds.
    pub fn new(name: impl Into<String>, secret: Secret, local: Local) -> Self {
        Self { name: name.into(), secret, local, identity: None, replace: false, grace: Duration::from_secs(10) }
    }
}

/// What happens to a tunnel and on it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Requests for the address now come here.
    Up {
        /// The relay's version of this program.
        relay_version: String,
    },
    /// No tunnel; requests are answered in the cluster.
    Away {
        /// What went wrong, for people.
        reason: String,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// A request was answered, or will not be.
    Request(RequestLine),
    /// Another program took the address over; [`run`] ends once running requests have.
    Replaced,
}

/// One request, when its answer began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// The answer's status; `None` when there was none.
    pub status: Option<u16>,
    /// From the request's arrival to the answer's head.
    pub duration: Duration,
    /// What became of it.
    pub outcome: RequestOutcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The developer's server answered.
    Answered,
    /// It was not asked; the in-cluster version answers.
    Unavailable(Unavailable),
    /// It broke off before it answered.
    Lost(String),
    /// The client went away first.
    Cancelled,
}

/// Why a tunnel cannot be kept. Everything else is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The relay will not have this developer machine.
    #[error("the relay refused the tunnel ({status}): {reason}")]
    Refused {
        /// The HTTP status it gave; 409 when another running program holds the address.
        status: u16,
        /// Its own words.
        reason: String,
    },
    /// Another program took the address over.
    #[error("intercept {name}: its tunnel was taken over by another program")]
    Replaced {
        /// The intercept.
        name: String,
    },
    /// A name that no header can carry.
    #[error("intercept name {name:?}: expected letters, digits, hyphens and dots")]
    InvalidName {
        /// The name.
        name: String,
    },
}

/// A connection to the relay's control port.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How the relay's control port is reached.
pub trait Connect: Send + Sync {
    /// Opens one connection to it.
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + '_>>;
}

impl<F, R> Connect for F
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = io::Result<Box<dyn Stream>>> + Send + 'static,
{
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + '_>> {
        Box::pin(self())
    }
}

/// Reaches a control port by TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp(pub std::net::SocketAddr);

impl Connect for Tcp {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + '_>> {
        Box::pin(async {
            let stream = tokio::net::TcpStream::connect(self.0).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// From dialling to the relay's word that requests come this way.
const OPENING: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A tunnel that lived this long was a good one; the next attempt begins quickly again.
const SETTLED: Duration = Duration::from_secs(5);

/// Keeps a tunnel open until `shutdown` is ready, then takes nothing new and lets running requests end.
/// The first [`Event::Up`] says that requests come through.
///
/// # Errors
/// Only what no further attempt can change, see [`TunnelError`].
pub async fn run(
    developer: Developer,
    connect: impl Connect,
    events: mpsc::Sender<Event>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TunnelError> {
    let grace = developer.grace;
    let mut keeper = Keeper::new(developer, events)?;
    let result = tokio::select! {
        error = keeper.keep(&connect) => Err(error),
        () = shutdown => Ok(()),
    };
    keeper.leave(grace).await;
    result
}

struct Keeper {
    hello: Hello,
    station: Station,
    serving: JoinSet<()>,
    session: Option<Session>,
    retry: Duration,
}

enum Failed {
    ForNow(String),
    ForGood(TunnelError),
}

impl Keeper {
    fn new(developer: Developer, events: mpsc::Sender<Event>) -> Result<Self, TunnelError> {
        let Developer { name, secret, local, identity, replace, .. } = developer;
        let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let served_by = HeaderValue::from_str(&name).ok().filter(|_| is_plain);
        let served_by = served_by.ok_or_else(|| TunnelError::InvalidName { name: name.clone() })?;
        let instance = uuid::Uuid::new_v4().to_string();
        Ok(Self {
            hello: Hello { secret, name, identity, instance, replace },
            station: Station { local, served_by, leaving: Arc::new(AtomicBool::new(false)), events },
            serving: JoinSet::new(),
            session: None,
            retry: FIRST_RETRY,
        })
    }

    /// Opens tunnels, one after the other, each before the one before is left.
    async fn keep(&mut self, connect: &impl Connect) -> TunnelError {
        loop {
            match timeout(OPENING, self.open(connect)).await.unwrap_or_else(|_| Err(Failed::ForNow("the relay does not answer".to_owned()))) {
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
            }
            let opened = Instant::now();
            let ended = self.watch().await;
            if opened.elapsed() >= SETTLED {
                self.retry = FIRST_RETRY;
            }
            match ended {
                Ok(()) => {}
                Err(Failed::ForNow(reason)) => self.wait(reason).await,
                Err(Failed::ForGood(error)) => return error,
            }
        }
    }

    async fn open(&mut self, connect: &impl Connect) -> Result<(Session, String), Failed> {
        let stream = connect.connect().await.map_err(|error| Failed::ForNow(format!("the relay cannot be reached: {error}")))?;
        let (upgraded, welcome) = protocol::open(stream, &self.hello).await?;
        let mut session = Session::start(upgraded, &welcome, &self.station, &mut self.serving);
        loop {
            match session.news().await {
                News::Signal(Signal::Registered) => return Ok((session, welcome.relay_version)),
                News::Signal(_) => {}
                News::Ended(reason) => return Err(Failed::ForNow(reason)),
            }
        }
    }

    /// Watches the tunnel until another one is needed: at once when the relay is leaving, since this one still serves meanwhile.
    async fn watch(&mut self) -> Result<(), Failed> {
        while let Some(session) = &mut self.session {
            match session.news().await {
                News::Signal(Signal::Registered) => {}
                News::Signal(Signal::RelayLeaving) => return Ok(()),
                News::Signal(Signal::Replaced) => {
                    self.tell(Event::Replaced).await;
                    return Err(Failed::ForGood(TunnelError::Replaced { name: self.hello.name.clone() }));
                }
                News::Ended(reason) => {
                    self.session = None;
                    return Err(Failed::ForNow(reason));
                }
            }
        }
        Ok(())
    }

    /// Waits before the next attempt, each time twice as long, and never as long as another machine that lost its tunnel at the same moment.
    async fn wait(&mut self, reason: String) {
        while self.serving.try_join_next().is_some() {}
        let retry_in = self.retry.mul_f64(rand::random_range(0.5..1.0));
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.tell(Event::Away { reason, retry_in }).await;
        sleep(retry_in).await;
    }

    async fn tell(&self, event: Event) {
        // Nobody listening is no reason to stop serving.
        let _ = self.station.events.send(event).await;
    }

    async fn leave(mut self, grace: Duration) {
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
            OpenError::Refused(refusal) if !refusal.retry => {
                Self::ForGood(TunnelError::Refused { status: refusal.status.as_u16(), reason: refusal.reason })
            }
            other => Self::ForNow(other.to_string()),
        }
    }
}

//! The developer machine's end: dials out to the relay, serves what comes through the tunnel from the developer's own server, and comes back whenever the
//! tunnel is lost, for as long as it lives.

mod body;
mod hold;
mod keeper;
mod line;
mod local;
mod serve;
mod session;
mod switch;
mod under_way;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use local::{Local, LocalProtocol};
pub use under_way::UnderWay;

use super::{Secret, Tempo};
use keeper::Keeper;

/// What a developer machine offers.
#[derive(Clone, Debug)]
pub struct Developer {
    /// The intercept's name; answers carry it as `x-intercept-served-by`, requests as `x-intercept-via`.
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
    /// Counts the requests that are under way.
    pub under_way: UnderWay,
    /// How often its tunnels beat, and how long one may be silent.
    pub tempo: Tempo,
}

impl Developer {
    /// A developer machine that serves anybody who reaches the relay, replaces nobody, and gives running requests ten seconds.
    pub fn new(name: impl Into<String>, secret: Secret, local: Local) -> Self {
        Self {
            name: name.into(),
            secret,
            local,
            identity: None,
            replace: false,
            grace: Duration::from_secs(10),
            under_way: UnderWay::default(),
            tempo: Tempo::default(),
        }
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
    /// This relay has no room for one more tunnel, another one may; [`Event::Away`] follows, and another attempt.
    Full,
    /// A request was answered, or will not be.
    Request(RequestLine),
    /// Another program took the address over; [`run`] ends once running requests have.
    Replaced,
}

/// One request, once its answer has ended, or has gone on for a second. One that broke off later is told a second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// The status that the client sees; `None` when it sees none of this machine's.
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
    /// It answered, and broke off before its answer was whole; so does what the client gets.
    BrokeOff {
        /// Bytes of the body that were passed on.
        bytes: u64,
        /// What happened, for people.
        reason: String,
    },
    /// The in-cluster version answers, for this reason: the developer's server was not asked, or it broke off and the request is safe.
    FellBack(String),
    /// The developer's server broke off before it answered, and the client gets an error.
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

/// A connection that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// How the relay's control port is reached.
pub trait Connect: Send + Sync {
    /// Opens one connection to it.
    fn connect(&self) -> Connecting<'_>;
}

impl<F, R> Connect for F
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = io::Result<Box<dyn Stream>>> + Send + 'static,
{
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self())
    }
}

/// Reaches a control port by TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp(pub std::net::SocketAddr);

impl Connect for Tcp {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = tokio::net::TcpStream::connect(self.0).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

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

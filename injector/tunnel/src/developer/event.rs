//! Events of a tunnel and of its requests.

use std::time::Duration;

use http::Method;

/// An event of a tunnel.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tunnel is up: requests for the address now come here.
    Up {
        /// The relay's version of this program.
        relay_version: String,
    },
    /// The tunnel is down; requests are answered in the cluster.
    Away {
        /// What went wrong, as text.
        reason: String,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// This relay is full, another one may have room. [`Event::Away`] follows, and another attempt.
    Full,
    /// A request was answered or failed.
    Request(RequestLine),
    /// Another program took over the address; [`super::run`] ends once running requests have.
    Replaced,
}

/// The outcome of one request, reported when its response ends or after a second.
///
/// If the response breaks off later, it is reported again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// The request method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The status that the client receives from this machine, if any.
    pub status: Option<u16>,
    /// Time from the arrival of the request to the response head.
    pub duration: Duration,
    /// The outcome.
    pub outcome: RequestOutcome,
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The developer's server answered.
    Answered,
    /// The developer's server broke off its response, and so does the client's.
    BrokeOff {
        /// Bytes of the body that were forwarded.
        bytes: u64,
        /// What happened, as text.
        reason: String,
    },
    /// The in-cluster version answers, for this reason.
    ///
    /// The developer's server did not get the request, or broke off and the request is safe.
    FellBack(String),
    /// The developer's server broke off before it answered, and the client gets an error.
    Lost(String),
    /// The client disconnected first.
    Cancelled,
}

/// A permanent error of a tunnel. All other errors are retried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The relay refused this developer machine.
    #[error("the relay refused the tunnel ({status}): {reason}")]
    Refused {
        /// The HTTP status; 409 if another running program holds the address.
        status: u16,
        /// The relay's text.
        reason: String,
    },
    /// Another program took over the address.
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

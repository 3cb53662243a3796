//! What is told of a tunnel and of the requests on it.

use std::time::Duration;

use http::Method;

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
    /// Another program took the address over; [`super::run`] ends once running requests have.
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

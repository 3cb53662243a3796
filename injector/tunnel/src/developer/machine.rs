//! The settings of a developer machine.

use std::time::Duration;

use super::{Dial, Local, UnderWay};
use crate::{Secret, Tempo};

/// A developer machine: its intercept, its server, and its limits.
#[derive(Clone, Debug)]
pub struct Developer {
    /// The intercept's name, for `x-intercept-served-by` and `x-intercept-via`.
    pub name: String,
    /// Proves the right to the tunnel's address.
    pub secret: Secret,
    /// The developer's server.
    pub local: Local,
    /// The way to it.
    pub dial: Dial,
    /// The SPIFFE identity of the only workload that may use the tunnel; without one, every caller of the relay.
    pub identity: Option<String>,
    /// Take over the address from another running program.
    pub replace: bool,
    /// How long running requests may take after the shutdown began.
    pub grace: Duration,
    /// Report each request as an event?
    pub reports_requests: bool,
    /// Counts running requests.
    pub under_way: UnderWay,
    /// Interval of the beats, and timeouts for silence.
    pub tempo: Tempo,
}

impl Developer {
    /// A developer machine with default settings.
    ///
    /// It serves every caller, replaces no other tunnel, and gives running requests ten seconds.
    pub fn new(name: impl Into<String>, secret: Secret, local: Local) -> Self {
        Self {
            name: name.into(),
            secret,
            local,
            dial: Dial::default(),
            identity: None,
            replace: false,
            grace: Duration::from_secs(10),
            reports_requests: true,
            under_way: UnderWay::default(),
            tempo: Tempo::default(),
        }
    }
}

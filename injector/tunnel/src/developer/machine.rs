//! What a developer machine offers.

use std::time::Duration;

use super::{Dial, Local, UnderWay};
use crate::{Secret, Tempo};

/// What a developer machine offers.
#[derive(Clone, Debug)]
pub struct Developer {
    /// The intercept's name; answers carry it as `x-intercept-served-by`, requests as `x-intercept-via`.
    pub name: String,
    /// Proves the right to the tunnel's address.
    pub secret: Secret,
    /// The developer's server.
    pub local: Local,
    /// The way to it.
    pub dial: Dial,
    /// The SPIFFE identity of the only workload that may use the tunnel; without one, every caller of the relay.
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
    /// A developer machine that serves every caller of the relay, replaces no other tunnel, and gives running requests ten seconds.
    pub fn new(name: impl Into<String>, secret: Secret, local: Local) -> Self {
        Self {
            name: name.into(),
            secret,
            local,
            dial: Dial::default(),
            identity: None,
            replace: false,
            grace: Duration::from_secs(10),
            under_way: UnderWay::default(),
            tempo: Tempo::default(),
        }
    }
}

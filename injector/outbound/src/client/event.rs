//! Events for the user of the developer's end.

use std::time::Duration;

use crate::hello::Rejection;

/// What happens to the connection, and on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Connections can be opened.
    Up,
    /// They cannot; the next attempt is made after that time.
    Away {
        /// Why.
        reason: String,
        /// Until the next attempt.
        retry_in: Duration,
    },
    /// The cluster's end refused for good, and no further attempt is made.
    Rejected(Rejection),
    /// The operator does not allow a destination.
    Denied {
        /// Which.
        destination: String,
        /// The rule that refused.
        reason: String,
    },
}

//! Can the relays' sidecars serve them?

use serde_json::Value;

use super::Check;
use super::snapshot::Answer;
use crate::install::relays;

const ID: &str = "relay-sidecar";

/// `None`: there is no relay, which another check says.
pub fn check(pods: &Answer<Vec<Value>>, namespace: &str) -> Option<Check> {
    match pods {
        Ok(pods) if pods.is_empty() => None,
        Ok(pods) => Some(match relays::fault(pods) {
            None => Check::pass(ID, "the relays have sidecars"),
            Some(fault) => Check::fail(ID, fault, relays::hint(namespace)),
        }),
        Err(error) => Some(Check::unanswered(ID, "the relays' sidecars", error)),
    }
}

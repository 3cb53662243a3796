//! Are developers held to what is theirs, and do the admission policies know the time?

use jiff::Timestamp;
use serde_json::Value;

use super::Check;
use super::seen::{Answer, Installation};
use crate::install_line::Kept;

/// How many admission policies hold developers; fewer, and some of what RBAC cannot say is not held.
const POLICIES: usize = 5;

/// An API server renews its Lease every ten seconds. One that is older than this many seconds is nobody's any more.
const OLDEST: u64 = 60;

pub fn policies(seen: &Installation, namespace: &str) -> Check {
    const ID: &str = "admission-policies";
    let (bindings, policies) = match (&seen.bindings, &seen.policies) {
        (Ok(bindings), Ok(policies)) => (bindings, policies),
        (Err(error), _) | (_, Err(error)) => {
            return Check::unanswered(ID, "admission policies", error);
        }
    };
    let in_force = bindings
        .iter()
        .filter(|binding| is_in_force(binding, policies))
        .count();
    if in_force >= POLICIES {
        return Check::good(
            ID,
            "developers are held to their own intercepts by admission policies",
        );
    }
    let kept = Kept {
        relay_namespace: namespace.to_owned(),
        ..Kept::default()
    };
    Check::bad(
        ID,
        format!("{in_force} of {POLICIES} admission policies are in force"),
        format!(
            "an administrator applies them again: injector install{}",
            kept.flags()
        ),
    )
}

/// Does it refuse, everywhere, by a policy that is there?
fn is_in_force(binding: &Value, policies: &[Value]) -> bool {
    let spec = &binding["spec"];
    let denies = spec["validationActions"]
        .as_array()
        .is_some_and(|actions| actions.iter().any(|action| action == "Deny"));
    let is_everywhere = spec["matchResources"].is_null();
    let has_policy = policies.iter().any(|policy| {
        policy["metadata"]["name"] == spec["policyName"]
            && policy["spec"]["failurePolicy"] == "Fail"
    });
    denies && is_everywhere && has_policy
}

/// The Leases by which the policies know the time: the oldest of them decides. `now` in seconds since the epoch, by the API server.
pub fn clock(leases: &Answer<Vec<Value>>, now: &Answer<u64>) -> Check {
    const ID: &str = "policy-clock";
    let (leases, now) = match (leases, now) {
        (Ok(leases), Ok(now)) => (leases, *now),
        (Err(error), _) | (_, Err(error)) => {
            return Check::unanswered(ID, "the clock of the admission policies", error);
        }
    };
    let hint = "what others left behind, an operator clears away meanwhile: injector leave -n NAMESPACE --force NAME";
    let oldest = leases
        .iter()
        .map(|lease| age(lease, now).unwrap_or(u64::MAX))
        .max();
    match oldest {
        None => Check::perhaps(
            ID,
            "no API server keeps a Lease in kube-system: only operators clear away what others left behind",
            hint,
        ),
        Some(0..=OLDEST) => Check::good(ID, "the admission policies know the time"),
        Some(age) => {
            let renewed = match age {
                u64::MAX => "has never been renewed".to_owned(),
                _ => format!("was last renewed {} min ago", age / 60),
            };
            let found = format!(
                "the Lease of an API server {renewed}: until it is renewed or gone (within two hours, where its host is gone), only operators clear away what others left behind"
            );
            Check::perhaps(ID, found, hint)
        }
    }
}

/// How long ago it was renewed, in seconds; `None`: never.
fn age(lease: &Value, now: u64) -> Option<u64> {
    let renewed: Timestamp = lease["spec"]["renewTime"].as_str()?.parse().ok()?;
    Some(now.saturating_sub(u64::try_from(renewed.as_second()).ok()?))
}

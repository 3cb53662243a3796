//! Are developers held to what is theirs, and do the admission policies know the time?

use jiff::Timestamp;
use serde_json::Value;

use super::Check;
use super::seen::{Answer, Installation};
use crate::install_line::Kept;

/// How many admission policies hold developers; fewer, and some of what RBAC cannot say is not held.
const POLICIES: usize = 5;

/// How many of them ask for the time, where they were installed while there was a clock.
const ASKING: usize = 2;

/// An API server renews its Lease every ten seconds. One that is older than this many seconds is nobody's any more.
const OLDEST: u64 = 60;

const CLOCK: &str = "policy-clock";

/// Whoever may `update` is not held, so needs no clock.
const BY_OPERATOR: &str = "what others left behind, an operator clears away meanwhile: injector leave -n NAMESPACE --force NAME";

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
    Check::bad(
        ID,
        format!("{in_force} of {POLICIES} admission policies are in force"),
        format!(
            "an administrator applies them again: {}",
            install_line(namespace)
        ),
    )
}

fn install_line(namespace: &str) -> String {
    format!("injector install{}", Kept::beside(namespace).flags())
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

/// Do the policies know the time, if they were installed so that they ask for it? `now` in seconds since the epoch, by the API server.
pub fn clock(seen: &Installation, now: &Answer<u64>, namespace: &str) -> Check {
    let (policies, leases, now) = match (&seen.policies, &seen.clocks, now) {
        (Ok(policies), Ok(leases), Ok(now)) => (policies, leases, *now),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            return Check::unanswered(CLOCK, "the clock of the admission policies", error);
        }
    };
    let asking = policies.iter().filter(|policy| asks_for_time(policy));
    match (asking.count(), leases.as_slice()) {
        _ if policies.is_empty() => Check::unknown(
            CLOCK,
            "the clock of the admission policies: not verified, there are none",
        ),
        (0, []) => Check::perhaps(
            CLOCK,
            "no API server keeps a Lease in kube-system, and the admission policies go without: only operators clear away what others left behind",
            BY_OPERATOR,
        ),
        (_, []) => lost(namespace),
        (ASKING.., leases) => age_of_oldest(leases, now),
        _ => Check::perhaps(
            CLOCK,
            "the API servers keep Leases in kube-system, but the admission policies were installed to go without: only operators clear away what others left behind",
            format!(
                "an administrator applies them again: {}",
                install_line(namespace)
            ),
        ),
    }
}

/// It has a parameter, which of ours is always a Lease.
fn asks_for_time(policy: &Value) -> bool {
    policy["spec"].get("paramKind").is_some()
}

/// Where a parameter is missing the API server refuses each request that it would be for, whoever asks: every UPDATE of a WasmPlugin and every DELETE of an EnvoyFilter of ours.
fn lost(namespace: &str) -> Check {
    Check::bad(
        CLOCK,
        "no API server keeps a Lease in kube-system, by which the admission policies know the time: WasmPlugins of ours cannot be changed nor EnvoyFilters of ours be deleted, by anybody, \
         so no intercept begins, is renewed or is left",
        format!(
            "an administrator applies the policies again, without that clock: {}",
            install_line(namespace)
        ),
    )
}

/// The Lease that is furthest behind decides.
fn age_of_oldest(leases: &[Value], now: u64) -> Check {
    let ages = leases
        .iter()
        .map(|lease| age(lease, now).unwrap_or(u64::MAX));
    let renewed = match ages.max().unwrap_or(u64::MAX) {
        0..=OLDEST => return Check::good(CLOCK, "the admission policies know the time"),
        u64::MAX => "has never been renewed".to_owned(),
        age => format!("was last renewed {} min ago", age / 60),
    };
    let found = format!(
        "the Lease of an API server {renewed}: until it is renewed or gone (within two hours, where its host is gone), only operators clear away what others left behind"
    );
    Check::perhaps(CLOCK, found, BY_OPERATOR)
}

/// How long ago it was renewed, in seconds; `None`: never.
fn age(lease: &Value, now: u64) -> Option<u64> {
    let renewed: Timestamp = lease["spec"]["renewTime"].as_str()?.parse().ok()?;
    Some(now.saturating_sub(u64::try_from(renewed.as_second()).ok()?))
}

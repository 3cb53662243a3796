//! The cluster part: is it there, does it run, does it fit this build?

use serde_json::Value;

use super::Check;
use super::seen::{Answer, Installation};
use crate::curl::quote;
use crate::manifest::istio::names;

/// How many admission policies hold developers; fewer, and some of what RBAC cannot say is not held.
const POLICIES: usize = 4;

pub fn checks(seen: &Installation, namespace: &str) -> Vec<Check> {
    let mut checks = vec![match &seen.istio {
        Ok(_) => Check::good("Istio's custom resources are there"),
        Err(error) => Check::unanswered("Istio", error),
    }];
    checks.extend(workload(names::RELAY, &seen.relay, namespace));
    checks.extend(seen.relay.iter().flatten().map(version));
    checks.extend(workload(names::MODULE, &seen.module, namespace));
    checks.push(match &seen.policies {
        Ok(bindings) if bindings.len() >= POLICIES => {
            Check::good("developers are held to their own intercepts by admission policies")
        }
        Ok(bindings) => Check::bad(
            format!(
                "{} of {POLICIES} admission policies are in force",
                bindings.len()
            ),
            "an administrator applies them again: injector install",
        ),
        Err(error) => Check::unanswered("admission policies", error),
    });
    checks
}

fn workload(name: &str, answer: &Answer<Option<Value>>, namespace: &str) -> Vec<Check> {
    let object = match answer {
        Ok(Some(object)) => object,
        Ok(None) => {
            return vec![Check::bad(
                format!("{name}: there is none in {namespace}"),
                "an administrator installs it: injector install --help; another namespace: --relay-namespace NAME",
            )];
        }
        Err(error) => return vec![Check::unanswered(name, error)],
    };
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (ready, wanted) = (number("/status/readyReplicas"), number("/spec/replicas"));
    let found = format!("{name}: {ready}/{wanted} ready");
    let hint = format!(
        "kubectl -n {} get pods -l app.kubernetes.io/name={name}",
        quote(namespace)
    );
    vec![match ready {
        0 => Check::bad(found, hint),
        _ if ready < wanted => Check::perhaps(found, hint),
        _ => Check::good(found),
    }]
}

/// Before 1.0 every minor version may speak differently.
fn version(relay: &Value) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    let label = "/metadata/labels/app.kubernetes.io~1version";
    let found = relay
        .pointer(label)
        .and_then(Value::as_str)
        .unwrap_or_default();
    let minor = |version: &str| {
        let parts: Vec<&str> = version.split('.').take(2).collect();
        parts.join(".")
    };
    match minor(found) == minor(own) {
        true => Check::good(format!(
            "relays and this command are of version {found} and {own}"
        )),
        false => Check::bad(
            format!("the relays are of version `{found}`, this command is {own}"),
            "take the command of that version, or an operator upgrades: injector install --relay-image …",
        ),
    }
}

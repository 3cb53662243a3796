//! Who is let through, and who is not: AuthorizationPolicies and PeerAuthentications at the relays and at the workload.

use std::collections::BTreeMap;

use intercept_kube::prepare;
use intercept_manifest::istio::names;
use serde_json::{Value, json};

use super::Check;
use super::snapshot::{Answer, Surroundings, Target, is_ours, labels, name_of};
use crate::shell::quote;

type Labels = BTreeMap<String, String>;

/// `relays`: the labels of each relay's pod.
pub fn checks(seen: &Surroundings, target: &Target, relays: &[Labels]) -> Vec<Check> {
    let own = target.labels();
    let is_at_relay = |policy: &Value| relays.iter().any(|relay| is_selected(policy, relay));
    let mut checks = of_kind(
        "relay-authorization",
        "AuthorizationPolicies at the relays",
        &[&seen.authorization, &seen.root_authorization],
        |policy| is_at_relay(policy).then(|| at_relay(policy)).flatten(),
    );
    checks.extend(of_kind(
        "relay-mtls",
        "PeerAuthentications at the relays",
        &[&seen.peers],
        |policy| {
            (is_at_relay(policy) && has_selector(policy))
                .then(|| peers_at_relay(policy, &target.relay_namespace))
        },
    ));
    checks.extend(of_kind(
        "authorization",
        "AuthorizationPolicies at the workload",
        &[&target.authorization, &seen.root_authorization],
        |policy| {
            (is_selected(policy, &own) && action(policy) != "AUDIT").then(|| {
                Check::warn(
                    "authorization",
                    format!(
                        "AuthorizationPolicy {}: it decides before any intercept ({}): what it denies never reaches a developer",
                        label(policy), action(policy)
                    ),
                    "if your request is answered with 403, that is why; send it as a caller that the policy lets through",
                )
            })
        },
    ));
    checks.push(callers(seen, target));
    checks
}

/// The labels of the relays' pods: of each one that is there, to which the mesh adds some of its own; as they are meant to be, and at least what they are called.
pub fn of_relays(relay: Option<&Value>, pods: &Answer<Vec<Value>>) -> Vec<Labels> {
    let name = [("app.kubernetes.io/name".to_owned(), names::RELAY.to_owned())];
    let meant = relay.map(|relay| labels(relay.pointer("/spec/template/metadata/labels")));
    let there = pods.iter().flatten();
    there
        .map(|pod| labels(pod.pointer("/metadata/labels")))
        .chain(meant)
        .chain([name.into()])
        .collect()
}

/// All findings about the policies of several places; a good one where there is none.
fn of_kind(
    id: &'static str,
    what: &str,
    places: &[&Answer<Vec<Value>>],
    judge: impl Fn(&Value) -> Option<Check>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for place in places {
        match place {
            Ok(policies) => {
                let others = policies.iter().filter(|policy| !is_ours(policy));
                checks.extend(others.filter_map(&judge));
            }
            Err(error) => checks.push(Check::unanswered(id, what, error)),
        }
    }
    if checks.is_empty() {
        checks.push(Check::pass(id, format!("{what}: none is in the way")));
    }
    checks
}

/// Ours allows every workload of the mesh, and one that allows is enough; only what denies can be in the way.
fn at_relay(policy: &Value) -> Option<Check> {
    const ID: &str = "relay-authorization";
    let denies_all = policy
        .pointer("/spec/rules")
        .and_then(Value::as_array)
        .is_some_and(|rules| rules.iter().any(|rule| *rule == json!({})));
    match action(policy) {
        "DENY" if denies_all => Some(Check::fail(
            ID,
            format!(
                "AuthorizationPolicy {}: it denies every request to the relays, so the cluster answers them all",
                label(policy)
            ),
            "give it a selector that leaves the relays out (app.kubernetes.io/name: injector-relay)",
        )),
        "DENY" | "CUSTOM" => Some(Check::warn(
            ID,
            format!(
                "AuthorizationPolicy {}: it decides about requests to the relays as well ({})",
                label(policy),
                action(policy)
            ),
            "it must let the workloads' identities pass to ports 8080 and 8081",
        )),
        _ => None,
    }
}

fn peers_at_relay(policy: &Value, relay_namespace: &str) -> Check {
    const ID: &str = "relay-mtls";
    let mode = mode(policy);
    let hint = format!(
        "kubectl -n {} delete peerauthentication {}",
        quote(relay_namespace),
        name_of(policy)
    );
    let found = format!(
        "PeerAuthentication {}: it selects the relays as well (mode {mode})",
        label(policy)
    );
    match mode {
        "DISABLE" => Check::fail(
            ID,
            format!("{found}: without mTLS a relay cannot tell who calls, and refuses"),
            hint,
        ),
        _ => Check::warn(ID, found, hint),
    }
}

/// What a caller outside the mesh can expect; not a fault, but the most common surprise with `curl`.
fn callers(seen: &Surroundings, target: &Target) -> Check {
    const ID: &str = "mtls";
    let own = target.labels();
    let (here, root) = match (&target.peers, &seen.root_peers) {
        (Ok(here), Ok(root)) => (here, root),
        (Err(error), _) | (_, Err(error)) => {
            return Check::unanswered(ID, "PeerAuthentications at the workload", error);
        }
    };
    // The most specific counts: for these pods, for the namespace, for the mesh.
    let selected = here
        .iter()
        .find(|policy| has_selector(policy) && is_selected(policy, &own));
    let of_namespace = || here.iter().find(|policy| !has_selector(policy));
    let of_mesh = || root.iter().find(|policy| !has_selector(policy));
    match selected.or_else(of_namespace).or_else(of_mesh) {
        Some(policy) if mode(policy) == "STRICT" => Check::pass(
            ID,
            format!(
                "PeerAuthentication {}: STRICT, so a caller outside the mesh is refused, intercepted or not",
                label(policy)
            ),
        ),
        Some(policy) => Check::pass(
            ID,
            format!(
                "PeerAuthentication {}: {}, callers outside the mesh are intercepted as well",
                label(policy),
                mode(policy)
            ),
        ),
        None => Check::pass(
            ID,
            "callers outside the mesh are intercepted as well (no PeerAuthentication)",
        ),
    }
}

fn label(policy: &Value) -> String {
    match policy["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", name_of(policy)),
        None => name_of(policy).to_owned(),
    }
}

fn action(policy: &Value) -> &str {
    policy
        .pointer("/spec/action")
        .and_then(Value::as_str)
        .unwrap_or("ALLOW")
}

fn mode(policy: &Value) -> &str {
    policy
        .pointer("/spec/mtls/mode")
        .and_then(Value::as_str)
        .unwrap_or("UNSET")
}

fn has_selector(policy: &Value) -> bool {
    !labels(policy.pointer("/spec/selector/matchLabels")).is_empty()
}

/// Are these pods among those that it is for? One with `targetRefs` is for gateways and waypoints.
fn is_selected(policy: &Value, pods: &Labels) -> bool {
    let is_for_others = ["/spec/targetRef", "/spec/targetRefs"]
        .iter()
        .any(|pointer| policy.pointer(pointer).is_some());
    !is_for_others && prepare::contains(pods, &labels(policy.pointer("/spec/selector/matchLabels")))
}

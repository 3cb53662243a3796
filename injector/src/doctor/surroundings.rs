//! What others wrote into the mesh that can stand in the way: of requests to the relays, or of the gate.

use serde_json::Value;

use super::Check;
use super::seen::{Surroundings, Target, is_ours, labels, name_of};
use crate::manifest::istio::names;
use crate::prepare;

pub fn checks(seen: &Surroundings, target: &Target, relay_namespace: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(egress(seen, target, relay_namespace));
    match (&target.filters, &seen.root_filters) {
        (Ok(own), Ok(root)) => checks.extend(filters(own.iter().chain(root), target)),
        (Ok(own), Err(error)) => {
            checks.extend(filters(own.iter(), target));
            checks.push(Check::unanswered("EnvoyFilters of the whole mesh", error));
        }
        (Err(_), _) => {}
    }
    match &seen.authorization {
        Ok(policies) => checks.extend(policies.iter().filter(on_relay).map(|policy| {
            Check::perhaps(
                format!("AuthorizationPolicy {relay_namespace}/{}: it decides about requests to the relays as well", name_of(policy)),
                "it must let the workloads' identities pass to ports 8080 and 8081",
            )
        })),
        Err(error) => checks.push(Check::unanswered("AuthorizationPolicies", error)),
    }
    match &seen.peers {
        Ok(policies) => checks.extend(policies.iter().filter(on_relay).filter(|policy| policy.pointer("/spec/selector").is_some()).map(|policy| {
            Check::perhaps(
                format!("PeerAuthentication {relay_namespace}/{}: it selects the relays as well", name_of(policy)),
                format!("kubectl -n {relay_namespace} delete peerauthentication {}", name_of(policy)),
            )
        })),
        Err(error) => checks.push(Check::unanswered("PeerAuthentications", error)),
    }
    checks
}

/// Not ours, and for the relays or for all of their namespace.
fn on_relay(policy: &&Value) -> bool {
    let selector = labels(policy.pointer("/spec/selector/matchLabels"));
    let relay = [("app.kubernetes.io/name".to_owned(), names::RELAY.to_owned())].into();
    !is_ours(policy) && prepare::contains(&relay, &selector)
}

/// Does a `Sidecar` resource hide the relays from the workload?
fn egress(seen: &Surroundings, target: &Target, relay_namespace: &str) -> Check {
    let sidecars = match &target.sidecars {
        Ok(sidecars) => sidecars,
        Err(error) => return Check::unanswered("Sidecar resources", error),
    };
    let own = prepare::sidecar_resource(&target.labels(), sidecars);
    let root = seen.root_sidecars.iter().flatten();
    let root = root
        .into_iter()
        .find(|sidecar| labels(sidecar.pointer("/spec/workloadSelector/labels")).is_empty());
    let Some(sidecar) = own.or(root) else {
        return match &seen.root_sidecars {
            Ok(_) => Check::good("no Sidecar resource hides the relays"),
            Err(error) => Check::unanswered("Sidecar resources of the whole mesh", error),
        };
    };
    let host = format!(
        "{}.{relay_namespace}.svc.cluster.local",
        names::relay_replica(0)
    );
    match shows(sidecar, &target.namespace, relay_namespace, &host) {
        true => Check::good(format!("Sidecar {} shows the relays", name_of(sidecar))),
        false => Check::bad(
            format!(
                "Sidecar {}: it hides the relays, so every request is answered by the in-cluster version",
                name_of(sidecar)
            ),
            format!("add to its egress hosts: \"{relay_namespace}/*\""),
        ),
    }
}

/// `NAMESPACE/HOST`, each possibly with a wildcard; without any egress, everything is shown.
pub(super) fn shows(sidecar: &Value, own: &str, namespace: &str, host: &str) -> bool {
    let egress = sidecar.pointer("/spec/egress").and_then(Value::as_array);
    let Some(egress) = egress.filter(|egress| !egress.is_empty()) else {
        return true;
    };
    let hosts = egress
        .iter()
        .filter_map(|listener| listener["hosts"].as_array())
        .flatten();
    let mut hosts = hosts.filter_map(Value::as_str);
    hosts.any(|pattern| {
        let (in_namespace, name) = pattern.split_once('/').unwrap_or(("*", pattern));
        let is_there = match in_namespace {
            "*" => true,
            "." => own == namespace,
            named => named == namespace,
        };
        let is_named = match name.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => name == host,
        };
        is_there && is_named
    })
}

/// Routes that others put in front of all, or take away.
fn filters<'v>(all: impl Iterator<Item = &'v Value>, target: &Target) -> Vec<Check> {
    let own = target.labels();
    let reaches = |filter: &&Value| {
        let selector = labels(filter.pointer("/spec/workloadSelector/labels"));
        !is_ours(filter) && prepare::contains(&own, &selector) && changes_routes(filter)
    };
    let found: Vec<Check> = all
        .filter(reaches)
        .map(|filter| {
            Check::perhaps(
                format!("EnvoyFilter {}: it changes inbound routes of these pods as well", name_of(filter)),
                "a route that it puts in front of ours takes the requests; give it a priority below 1000",
            )
        })
        .collect();
    match found.is_empty() {
        true => vec![Check::good("nobody else changes the inbound routes")],
        false => found,
    }
}

pub(super) fn changes_routes(filter: &Value) -> bool {
    let patches = filter
        .pointer("/spec/configPatches")
        .and_then(Value::as_array);
    patches.into_iter().flatten().any(|patch| {
        let on_routes = matches!(
            patch["applyTo"].as_str(),
            Some("HTTP_ROUTE" | "VIRTUAL_HOST" | "ROUTE_CONFIGURATION")
        );
        let context = patch
            .pointer("/match/context")
            .and_then(Value::as_str)
            .unwrap_or("ANY");
        on_routes && matches!(context, "ANY" | "SIDECAR_INBOUND")
    })
}

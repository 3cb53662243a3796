//! What the caller may do, as the API server says.

use super::{Check, Outcome};
use crate::cluster::{Cluster, Kind, Right, kind};
use crate::manifest::istio::names;

/// A right that an intercept takes, and what is lost without it.
struct Needed<'a> {
    right: Right<'a>,
    without: &'static str,
    outcome: Outcome,
}

/// All of them, asked at once.
pub async fn checks(
    cluster: &Cluster,
    (relay_namespace, replicas): (&str, u16),
    has_target: bool,
) -> Vec<Check> {
    let namespace = Some(cluster.namespace());
    let relays: Vec<String> = (0..replicas).map(names::relay_replica).collect();
    let read = |kind: &'static Kind| Needed {
        right: Right::new("list", kind, namespace),
        without: "nothing can be intercepted here",
        outcome: Outcome::Bad,
    };
    let mut needed = Vec::new();
    if has_target {
        needed.extend([
            read(&kind::SERVICE),
            read(&kind::POD),
            Needed {
                right: Right::new("patch", &kind::WASM_PLUGIN, namespace),
                ..read(&kind::POD)
            },
            Needed {
                right: Right::new("create", &kind::ENVOY_FILTER, namespace),
                without: "intercepts share the cluster of their relay",
                outcome: Outcome::Perhaps,
            },
            Needed {
                right: Right::new("list", &kind::EVENT, namespace),
                without: "who removed your intercept cannot be told",
                outcome: Outcome::Perhaps,
            },
            Needed {
                right: Right::new("create", &kind::EVENT, namespace),
                without: "nobody is told of your intercepts by Events",
                outcome: Outcome::Perhaps,
            },
        ]);
    }
    for (verb, relay) in ["get", "create"]
        .iter()
        .flat_map(|verb| relays.iter().map(move |relay| (*verb, relay)))
    {
        needed.push(Needed {
            right: Right::new(verb, &kind::POD, Some(relay_namespace))
                .of("portforward")
                .on(relay),
            without: match verb {
                "get" => "no tunnel can be opened there",
                _ => "no tunnel can be opened there from Kubernetes 1.35 on",
            },
            outcome: Outcome::Perhaps,
        });
    }
    let mut checks = Vec::new();
    for needed in &needed {
        checks.push(match cluster.can(&needed.right).await {
            Ok(true) => Check::good(id(&needed.right), format!("you may {}", needed.right)),
            Ok(false) => Check {
                id: id(&needed.right).into(),
                outcome: needed.outcome,
                found: format!("you may not {}: {}", needed.right, needed.without),
                hint: Some(format!(
                    "an administrator binds {} to you, in {} and in {relay_namespace}: kubectl create rolebinding --help",
                    names::DEVELOPER_ROLE,
                    cluster.namespace()
                )),
            },
            Err(error) => Check::unanswered(id(&needed.right), "your rights", &error),
        });
    }
    demand_one_relay(&mut checks);
    checks
}

/// One relay is enough; without any, there is no tunnel.
fn demand_one_relay(checks: &mut [Check]) {
    let is_tunnel = |check: &&mut Check| check.id == "right-get-pods-portforward";
    if checks
        .iter()
        .any(|check| check.id == "right-get-pods-portforward" && check.outcome == Outcome::Good)
    {
        return;
    }
    for check in checks.iter_mut().filter(is_tunnel) {
        if check.outcome == Outcome::Perhaps {
            check.outcome = Outcome::Bad;
        }
    }
}

/// `right-get-pods-portforward`.
fn id(right: &Right<'_>) -> String {
    let subresource = right.subresource.map(|name| format!("-{name}"));
    format!(
        "right-{}-{}{}",
        right.verb,
        right.kind.plural,
        subresource.unwrap_or_default()
    )
}

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
pub async fn checks(cluster: &Cluster, relay_namespace: &str, has_target: bool) -> Vec<Check> {
    let namespace = Some(cluster.namespace());
    let relay = names::relay_replica(0);
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
                right: Right::new("create", &kind::EVENT, namespace),
                without: "nobody is told of your intercepts by Events",
                outcome: Outcome::Perhaps,
            },
        ]);
    }
    for verb in ["get", "create"] {
        needed.push(Needed {
            right: Right::new(verb, &kind::POD, Some(relay_namespace))
                .of("portforward")
                .on(&relay),
            without: match verb {
                "get" => "no tunnel can be opened",
                _ => "no tunnel can be opened from Kubernetes 1.35 on",
            },
            outcome: if verb == "get" {
                Outcome::Bad
            } else {
                Outcome::Perhaps
            },
        });
    }
    let mut checks = Vec::new();
    for needed in &needed {
        checks.push(match cluster.can(&needed.right).await {
            Ok(true) => Check::good(format!("you may {}", needed.right)),
            Ok(false) => Check {
                outcome: needed.outcome,
                found: format!("you may not {}: {}", needed.right, needed.without),
                hint: Some(format!(
                    "an administrator binds {} to you, in {} and in {relay_namespace}: kubectl create rolebinding --help",
                    names::DEVELOPER_ROLE,
                    cluster.namespace()
                )),
            },
            Err(error) => Check::unanswered("your rights", &error),
        });
    }
    checks
}

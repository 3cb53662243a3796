//! What the caller may do, as the API server says.

use super::seen::Answer;
use super::{Check, Outcome};
use crate::cluster::{Cluster, Kind, Right, kind};
use crate::manifest::istio::names;

/// A right that an intercept takes, and what is lost without it.
struct Needed<'a> {
    right: Right<'a>,
    without: &'static str,
    outcome: Outcome,
}

/// All of them, asked one by one.
pub async fn checks(
    cluster: &Cluster,
    (relay_namespace, replicas): (&str, u16),
    has_target: bool,
) -> Vec<Check> {
    let namespace = cluster.namespace();
    let relays: Vec<String> = (0..replicas).map(names::relay_replica).collect();
    let mut needed = tunnel(relay_namespace, &relays);
    if has_target {
        needed.splice(0..0, intercept(namespace));
    }
    let mut checks = Vec::new();
    for needed in &needed {
        let answer = cluster.can(&needed.right).await;
        checks.push(needed.check(&answer, namespace, relay_namespace));
    }
    demand_one_relay(&mut checks);
    checks
}

/// What it takes where the workload is.
fn intercept(namespace: &str) -> Vec<Needed<'_>> {
    let needed = |verb, kind: &'static Kind, without, outcome| Needed {
        right: Right::new(verb, kind, Some(namespace)),
        without,
        outcome,
    };
    let must = |verb, kind| needed(verb, kind, "nothing can be intercepted here", Outcome::Bad);
    let may = |verb, kind, without| needed(verb, kind, without, Outcome::Perhaps);
    vec![
        must("list", &kind::SERVICE),
        must("list", &kind::POD),
        must("patch", &kind::WASM_PLUGIN),
        may(
            "create",
            &kind::ENVOY_FILTER,
            "intercepts share the cluster of their relay",
        ),
        may(
            "list",
            &kind::EVENT,
            "who removed your intercept cannot be told",
        ),
        may(
            "create",
            &kind::EVENT,
            "nobody is told of your intercepts by Events",
        ),
    ]
}

/// What it takes beside the relays.
fn tunnel<'a>(relay_namespace: &'a str, relays: &'a [String]) -> Vec<Needed<'a>> {
    let verbs = [
        ("get", "no tunnel can be opened there"),
        (
            "create",
            "no tunnel can be opened there from Kubernetes 1.35 on",
        ),
    ];
    let each = verbs.into_iter().flat_map(|(verb, without)| {
        relays.iter().map(move |relay| Needed {
            right: Right::new(verb, &kind::POD, Some(relay_namespace))
                .of("portforward")
                .on(relay),
            without,
            outcome: Outcome::Perhaps,
        })
    });
    each.collect()
}

impl Needed<'_> {
    fn check(&self, answer: &Answer<bool>, namespace: &str, relay_namespace: &str) -> Check {
        let right = &self.right;
        match answer {
            Ok(true) => Check::good(id(right), format!("you may {right}")),
            Ok(false) => Check {
                id: id(right).into(),
                outcome: self.outcome,
                found: format!("you may not {right}: {}", self.without),
                hint: Some(format!(
                    "an administrator binds {} to you, in {namespace} and in {relay_namespace}: kubectl create rolebinding --help",
                    names::DEVELOPER_ROLE,
                )),
            },
            Err(error) => Check::unanswered(id(right), "your rights", error),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What somebody is told who may do all but what `refused` names.
    fn told(refused: impl Fn(&str) -> bool) -> Vec<Check> {
        let relays = [names::relay_replica(0), names::relay_replica(1)];
        let mut needed = intercept("shop");
        needed.extend(tunnel("injector-system", &relays));
        let check = |needed: &Needed<'_>| {
            let may = !refused(&needed.right.to_string());
            needed.check(&Ok(may), "shop", "injector-system")
        };
        let mut checks: Vec<Check> = needed.iter().map(check).collect();
        demand_one_relay(&mut checks);
        checks
    }

    fn not_good(checks: &[Check]) -> Vec<(&str, Outcome)> {
        let checks = checks.iter().filter(|check| check.outcome != Outcome::Good);
        checks.map(|check| (&*check.id, check.outcome)).collect()
    }

    #[test]
    fn what_somebody_may_not_do_is_named_with_what_is_lost() {
        assert_eq!(not_good(&told(|_| false)), []);
        let lines: Vec<String> = told(|_| true)
            .into_iter()
            .map(|check| format!("{} {} {}", check.outcome.sign(), check.id, check.found))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn one_relay_is_enough_and_none_is_not() {
        let tunnel = "right-get-pods-portforward";
        let one = told(|right| right.starts_with("get") && right.contains("relay-1"));
        assert_eq!(not_good(&one), [(tunnel, Outcome::Perhaps)]);
        let none = told(|right| right.starts_with("get"));
        assert_eq!(
            not_good(&none),
            [(tunnel, Outcome::Bad), (tunnel, Outcome::Bad)]
        );
        // It is asked for by newer versions of Kubernetes only.
        let create = told(|right| right.starts_with("create pods"));
        let tunnel = "right-create-pods-portforward";
        let perhaps = (tunnel, Outcome::Perhaps);
        assert_eq!(not_good(&create), [perhaps, perhaps]);
    }
}

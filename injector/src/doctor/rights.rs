//! What the caller may do, as the API server says.

use intercept_kube::access::Right;
use intercept_kube::rights;
use intercept_kube::{Cluster, Kind, kind};
use intercept_manifest::istio::names;

use super::snapshot::Answer;
use super::{Check, Outcome};

/// A right that an intercept takes, and what is lost without it.
struct Needed<'a> {
    right: Right<'a>,
    without: &'static str,
    outcome: Outcome,
}

/// What an intercept takes where the workload is.
pub async fn of_intercept(cluster: &Cluster, relay_namespace: &str) -> Vec<Check> {
    let needed = intercept(cluster.namespace());
    ask(cluster, &needed, relay_namespace).await
}

/// What a tunnel takes beside the relays.
pub async fn of_tunnels(cluster: &Cluster, (relay_namespace, replicas): (&str, u16)) -> Vec<Check> {
    let relays: Vec<String> = (0..replicas).map(names::relay_replica).collect();
    let needed = tunnels(relay_namespace, &relays);
    demand_one_relay(ask(cluster, &needed, relay_namespace).await)
}

/// One by one.
async fn ask(cluster: &Cluster, needed: &[Needed<'_>], relay_namespace: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    for needed in needed {
        let answer = cluster.can(&needed.right).await;
        checks.push(needed.check(&answer, cluster.namespace(), relay_namespace));
    }
    checks
}

fn intercept(namespace: &str) -> Vec<Needed<'_>> {
    const NOTHING: &str = "nothing can be intercepted here";
    let right = |verb, kind: &'static Kind| Right::new(verb, kind, Some(namespace));
    let read = [
        right("list", &kind::SERVICE),
        right("list", &kind::POD),
        right("get", &kind::WASM_PLUGIN),
        right("list", &kind::INTERCEPT),
    ];
    let needed = read.into_iter().chain(rights::intercepts(namespace));
    needed
        .map(|right| Needed::new(right, NOTHING, Outcome::Fail))
        .collect()
}

/// Of one relay after the other.
fn tunnels<'a>(relay_namespace: &'a str, relays: &'a [String]) -> Vec<Needed<'a>> {
    let rights = relays
        .iter()
        .flat_map(|relay| rights::port_forward_to(relay_namespace, relay));
    rights
        .map(|right| Needed::new(right, "no tunnel can be opened there", Outcome::Warn))
        .collect()
}

impl<'a> Needed<'a> {
    fn new(right: Right<'a>, without: &'static str, outcome: Outcome) -> Self {
        Self {
            right,
            without,
            outcome,
        }
    }
}

impl Needed<'_> {
    fn check(&self, answer: &Answer<bool>, namespace: &str, relay_namespace: &str) -> Check {
        let right = &self.right;
        match answer {
            Ok(true) => Check::pass(id(right), format!("you may {right}")),
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

/// One relay that a tunnel may be opened to is enough; without any, there is no tunnel.
fn demand_one_relay(mut checks: Vec<Check>) -> Vec<Check> {
    let is_good = |check: &Check| check.outcome == Outcome::Pass;
    let mut relays = checks.chunks(rights::PORT_FORWARD.len());
    if relays.any(|relay| relay.iter().all(is_good)) {
        return checks;
    }
    for check in &mut checks {
        if check.outcome == Outcome::Warn {
            check.outcome = Outcome::Fail;
        }
    }
    checks
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

    /// The checks for a user who may do all but what `refused` names.
    fn told(refused: impl Fn(&str) -> bool) -> Vec<Check> {
        let relays = [names::relay_replica(0), names::relay_replica(1)];
        let check = |needed: &Needed<'_>| {
            let may = !refused(&needed.right.to_string());
            needed.check(&Ok(may), "shop", "injector-system")
        };
        let mut checks: Vec<Check> = intercept("shop").iter().map(check).collect();
        let needed = tunnels("injector-system", &relays);
        checks.extend(demand_one_relay(needed.iter().map(check).collect()));
        checks
    }

    fn not_good(checks: &[Check]) -> Vec<(&str, Outcome)> {
        let checks = checks.iter().filter(|check| check.outcome != Outcome::Pass);
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
        let [get, create] = [
            "right-get-pods-portforward",
            "right-create-pods-portforward",
        ];
        let one = told(|right| right.contains("relay-1"));
        let perhaps = [(get, Outcome::Warn), (create, Outcome::Warn)];
        assert_eq!(not_good(&one), perhaps);
        // `intercept` asks for both.
        for verb in ["get", "create"] {
            let none = told(|right| right.starts_with(&format!("{verb} pods")));
            assert_eq!(not_good(&none).len(), 2);
            assert!(none.iter().all(|check| check.outcome != Outcome::Warn));
        }
        let neither = told(|right| {
            right.starts_with("get pods/portforward injector-relay-0")
                || right.starts_with("create pods/portforward injector-relay-1")
        });
        assert_eq!(
            not_good(&neither),
            [(get, Outcome::Fail), (create, Outcome::Fail)]
        );
    }
}

//! Developers' connections into the cluster from the namespace: are they open, does their pod run, and may the caller use it?

use intercept_kube::access::Right;
use intercept_kube::{Cluster, kind, rights};
use intercept_manifest::istio::names;
use intercept_manifest::istio::reach::OutboundSettings;
use serde_json::Value;

use super::Check;
use super::snapshot::{Answer, text};
use crate::install::outbound::{fault, fault_hint};
use crate::mesh::relay::{VERSION, is_compatible};
use crate::shell::quote;

const ID: &str = "outbound";

/// One StatefulSet, and what the caller may do with it.
#[derive(Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The StatefulSet.
    pub object: Answer<Option<Value>>,
    /// Its pod.
    pub pod: Answer<Option<Value>>,
    /// What the caller may not do that a connection takes.
    pub missing: Answer<Vec<String>>,
}

/// Asks for those of the namespace, and looks at them. `relays`: the namespace of the relays, and how many there are.
pub async fn examine(cluster: &Cluster, relays: (&str, u16)) -> Vec<Check> {
    let namespace = cluster.namespace();
    let own = Set::read(cluster, None).await;
    let settings = own.settings();
    let mut all = checks(&own, namespace, relays);
    for account in settings.iter().flat_map(|it| &it.service_accounts) {
        let set = Set::read(cluster, Some(account)).await;
        all.extend(checks(&set, namespace, relays));
    }
    all
}

impl Set {
    async fn read(cluster: &Cluster, account: Option<&str>) -> Self {
        let name = names::outbound_set(account);
        let (namespace, pod) = (Some(cluster.namespace()), names::outbound_pod(&name));
        let (object, there) = tokio::join!(
            cluster.get(&kind::STATEFUL_SET, namespace, &name),
            cluster.get(&kind::POD, namespace, &pod),
        );
        Self {
            missing: missing(cluster, &pod).await,
            name,
            object,
            pod: there,
        }
    }

    fn settings(&self) -> Option<OutboundSettings> {
        OutboundSettings::read(self.object.as_ref().ok()?.as_ref()?)
    }
}

async fn missing(cluster: &Cluster, pod: &str) -> Answer<Vec<String>> {
    let needed: [Right<'_>; 2] = rights::port_forward_to(cluster.namespace(), pod);
    let mut missing = Vec::new();
    for right in needed {
        if !cluster.can(&right).await? {
            missing.push(right.to_string());
        }
    }
    Ok(missing)
}

/// What is to be said of one.
pub fn checks(set: &Set, namespace: &str, relays: (&str, u16)) -> Vec<Check> {
    let name = &set.name;
    let object = match &set.object {
        Ok(Some(object)) => object,
        Ok(None) => {
            return vec![Check::pass(
                ID,
                format!("{name}: developers do not connect into the cluster from {namespace}"),
            )];
        }
        Err(error) => return vec![Check::unanswered(ID, name, error)],
    };
    let again = format!("injector install -n {} --outbound", quote(namespace));
    let ready = object
        .pointer("/status/readyReplicas")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let mut checks = vec![match ready {
        0 => Check::warn(
            ID,
            format!("{name}: its pod is not ready"),
            format!(
                "kubectl -n {} describe pod {}",
                quote(namespace),
                names::outbound_pod(name)
            ),
        ),
        _ => Check::pass(ID, format!("{name}: its pod is ready")),
    }];
    checks.extend(sidecar(set, namespace));
    checks.push(version(set, object, &again));
    checks.extend(settings(set, relays, &again));
    checks.push(right(set, namespace));
    checks
}

fn sidecar(set: &Set, namespace: &str) -> Option<Check> {
    const ID: &str = "outbound-sidecar";
    match &set.pod {
        Ok(None) => None,
        Ok(Some(pod)) => Some(match fault(pod) {
            None => Check::pass(ID, format!("{}: its pod has a sidecar", set.name)),
            Some(fault) => Check::warn(ID, fault, fault_hint(namespace)),
        }),
        Err(error) => {
            let pod = names::outbound_pod(&set.name);
            Some(Check::unanswered(ID, &pod, error))
        }
    }
}

fn version(set: &Set, object: &Value, again: &str) -> Check {
    const ID: &str = "outbound-version";
    let found = text(object, "/metadata/labels/app.kubernetes.io~1version");
    let name = &set.name;
    match is_compatible(found, VERSION) {
        true => Check::pass(
            ID,
            format!("{name} and this command are of version {found} and {VERSION}"),
        ),
        false => Check::warn(
            ID,
            format!(
                "{name} is of version `{found}`, this command is {VERSION}: it does not connect"
            ),
            format!("take the command of that version, or an administrator upgrades: {again}"),
        ),
    }
}

/// Does it ask the relays that there are?
fn settings(set: &Set, (namespace, replicas): (&str, u16), again: &str) -> Option<Check> {
    const ID: &str = "outbound-relays";
    let mesh = set.settings()?.mesh;
    let is_same = (mesh.namespace.as_str(), mesh.relay_replicas) == (namespace, replicas);
    let asks = format!(
        "{} asks {} relays of {}",
        set.name, mesh.relay_replicas, mesh.namespace
    );
    Some(match is_same {
        true => Check::pass(ID, asks),
        false => Check::warn(
            ID,
            format!(
                "{asks}, and there are {replicas} in {namespace}: developers whose tunnels end at others cannot connect"
            ),
            format!("an administrator installs it again: {again}"),
        ),
    })
}

fn right(set: &Set, namespace: &str) -> Check {
    const ID: &str = "outbound-right";
    let name = &set.name;
    match &set.missing {
        Ok(missing) if missing.is_empty() => {
            Check::pass(ID, format!("you may connect into the cluster by {name}"))
        }
        Ok(missing) => Check::warn(
            ID,
            format!(
                "you may not {}: you cannot connect into the cluster by it",
                missing.join(", nor ")
            ),
            format!(
                "an operator binds the role to you: kubectl -n {} create rolebinding {name} --role={name} --user=YOU",
                quote(namespace)
            ),
        ),
        Err(error) => Check::unanswered(ID, "your rights", error),
    }
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::install::outbound_objects;
    use intercept_manifest::istio::{Object, example};
    use serde_json::json;

    use super::*;
    use crate::doctor::Outcome;

    fn set() -> Set {
        let objects = outbound_objects(&example::install(), &example::outbound());
        let objects = objects.expect("rendered");
        let mut object = Object::of_kind(&objects, "StatefulSet")
            .expect("one")
            .value()
            .clone();
        object["status"] = json!({"readyReplicas": 1});
        let containers =
            json!([{"name": "outbound"}, {"name": "istio-proxy", "image": "x/proxyv2:1.31.0"}]);
        let pod = json!({"metadata": {"name": "injector-outbound-0"}, "spec": {"containers": containers}});
        Set {
            name: names::OUTBOUND.to_owned(),
            object: Ok(Some(object)),
            pod: Ok(Some(pod)),
            missing: Ok(Vec::new()),
        }
    }

    /// The checks that are not good, of the example after this change.
    fn wrong(change: impl FnOnce(&mut Set)) -> Vec<String> {
        let mut set = set();
        change(&mut set);
        let checks = checks(&set, "shop", ("injector-system", 2));
        let wrong = checks.iter().filter(|check| check.outcome != Outcome::Pass);
        wrong.map(|check| check.id.to_string()).collect()
    }

    fn object(set: &mut Set) -> &mut Value {
        let object = set.object.as_mut().expect("an answer");
        object.as_mut().expect("an object")
    }

    #[test]
    fn each_fault_has_its_check() {
        assert_eq!(wrong(|_| {}), [""; 0]);
        assert_eq!(wrong(|set| set.object = Ok(None)), [""; 0]);
        assert_eq!(wrong(|set| object(set)["status"] = json!({})), ["outbound"]);
        assert_eq!(
            wrong(|set| set.pod = Ok(Some(json!({"spec": {"containers": []}})))),
            ["outbound-sidecar"]
        );
        let version = |set: &mut Set| {
            object(set)["metadata"]["labels"]["app.kubernetes.io/version"] = json!("99.0.0");
        };
        assert_eq!(wrong(version), ["outbound-version"]);
        assert_eq!(
            wrong(|set| set.missing = Ok(vec!["get pods/portforward".to_owned()])),
            ["outbound-right"]
        );
        let checks = checks(&set(), "shop", ("injector-system", 3));
        let other = checks.iter().find(|check| check.id == "outbound-relays");
        assert_eq!(other.expect("a check").outcome, Outcome::Warn);
    }
}

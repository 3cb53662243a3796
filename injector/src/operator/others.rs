//! What others keep in a namespace of ours. Deleting a namespace deletes all that is in it, so the API server is asked for every kind that it keeps; what cannot be told counts as theirs.

use serde_json::Value;

use super::OURS;
use crate::cluster::discovery::{Discovered, Served};
use crate::cluster::{Cluster, ClusterError};
use crate::lookup::name_of;

/// Every namespace has these, or the mesh puts them there: kind and name.
const IN_EVERY_NAMESPACE: &[(&str, &str)] = &[
    ("ServiceAccount", "default"),
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "istio-ca-root-cert"),
    ("ConfigMap", "istio-ca-crl"),
];

/// So many are named; of the others there is the number.
const NAMED: usize = 10;

/// What is in this namespace and not ours: `Job backup, Role look and 3 more`; `None`: nothing.
pub async fn find(cluster: &Cluster, namespace: &str) -> Result<Option<String>, ClusterError> {
    let discovered = match cluster.discover().await {
        Err(error) => return unknown("objects of any kind", error).map(Some),
        Ok(discovered) => discovered,
    };
    let away = discovered.away.iter();
    let away = away.map(|group| format!("perhaps objects of {group} (its API server is away)"));
    let mut found: Vec<String> = away.collect();
    for kind in discovered.kinds.iter().filter(|kind| !is_event(kind)) {
        match cluster.list_metadata(kind, namespace).await {
            Err(error) => found.push(unknown(&kind.to_string(), error)?),
            Ok(objects) => {
                let theirs = objects
                    .iter()
                    .filter(|object| is_theirs(kind, object, &discovered));
                found.extend(theirs.map(|object| format!("{} {}", kind.name, name_of(object))));
            }
        }
    }
    Ok(shown(&found))
}

/// An API server that answers, but not that. One that cannot be reached is an error.
fn unknown(what: &str, error: ClusterError) -> Result<String, ClusterError> {
    match error {
        ClusterError::Refused { .. } if error.is_forbidden() => {
            Ok(format!("perhaps {what} (you may not list them)"))
        }
        ClusterError::Refused { status, .. } => Ok(format!("perhaps {what} ({})", status.message)),
        error => Err(error),
    }
}

fn is_event(kind: &Served) -> bool {
    kind.name == "Event" && ["", "events.k8s.io"].contains(&kind.group.as_str())
}

fn is_theirs(kind: &Served, object: &Value, discovered: &Discovered) -> bool {
    let is_everywhere = kind.group.is_empty()
        && IN_EVERY_NAMESPACE.contains(&(kind.name.as_str(), name_of(object)));
    !is_ours(object) && !is_everywhere && !goes_with_another(object, discovered)
}

/// Pods, Endpoints and the like have our labels from what they were made for.
fn is_ours(object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let mut pairs = OURS.split(',').filter_map(|pair| pair.split_once('='));
    pairs.all(|(key, value)| labels[key] == value)
}

/// Is it owned by objects of this namespace alone? Those that are there are looked at themselves; with those that are gone it goes, too.
fn goes_with_another(object: &Value, discovered: &Discovered) -> bool {
    let is_of_namespace = |owner: &Value| {
        let version = owner["apiVersion"].as_str().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let is_it = |kind: &Served| kind.group == group && owner["kind"] == kind.name.as_str();
        discovered.kinds.iter().any(is_it)
    };
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| !owners.is_empty() && owners.iter().all(is_of_namespace))
}

fn shown(found: &[String]) -> Option<String> {
    let (named, others) = found.split_at(found.len().min(NAMED));
    match (named, others.len()) {
        ([], _) => None,
        (named, 0) => Some(named.join(", ")),
        (named, others) => Some(format!("{} and {others} more", named.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::istio::{Object, example, install};

    fn kind(group: &str, name: &str) -> Served {
        Served {
            group: group.to_owned(),
            version: "v1".to_owned(),
            name: name.to_owned(),
            plural: format!("{}s", name.to_lowercase()),
        }
    }

    /// Of an object with this metadata.
    fn is_theirs(group: &str, name: &str, metadata: Value) -> bool {
        let discovered = Discovered {
            kinds: vec![kind("apps", "StatefulSet"), kind("", "Pod")],
            away: Vec::new(),
        };
        super::is_theirs(
            &kind(group, name),
            &json!({"metadata": metadata}),
            &discovered,
        )
    }

    #[test]
    fn ours_and_what_every_namespace_has_are_nobody_elses() {
        let objects = install::cluster_objects(&example::install()).unwrap();
        let set = Object::of_kind(&objects, "StatefulSet");
        let pod = set["spec"]["template"]["metadata"].clone();
        assert!(!is_theirs("", "Pod", pod.clone()));
        for label in ["app.kubernetes.io/managed-by", "app.kubernetes.io/part-of"] {
            let mut half = pod.clone();
            half["labels"][label] = json!("x");
            assert!(is_theirs("", "Pod", half), "{label}");
        }
        for (kind, name) in IN_EVERY_NAMESPACE {
            assert!(!is_theirs("", kind, json!({ "name": name })));
            assert!(is_theirs("", kind, json!({"name": "x"})));
        }
        assert!(is_theirs("", "Secret", json!({"name": "default"})));
        assert!(is_theirs(
            "x.example",
            "ServiceAccount",
            json!({"name": "default"})
        ));
    }

    #[test]
    fn what_goes_with_an_object_of_the_namespace_is_not_looked_at_itself() {
        let owned = |owners: &[(&str, &str)]| {
            let owner = |(version, kind): &(&str, &str)| json!({"apiVersion": version, "kind": kind, "name": "x"});
            let owners: Vec<Value> = owners.iter().map(owner).collect();
            is_theirs(
                "",
                "ConfigMap",
                json!({"name": "c", "ownerReferences": owners}),
            )
        };
        let set = ("apps/v1", "StatefulSet");
        assert!(!owned(&[set]));
        assert!(!owned(&[set, ("v1", "Pod")]));
        assert!(owned(&[set, ("v1", "Node")]), "a node is in no namespace");
        assert!(owned(&[("other/v1", "StatefulSet")]));
        assert!(owned(&[]));
    }

    #[test]
    fn many_are_counted() {
        let names = |count: usize| (0..count).map(|n| format!("Job {n}")).collect::<Vec<_>>();
        assert_eq!(shown(&names(0)), None);
        assert_eq!(shown(&names(2)).unwrap(), "Job 0, Job 1");
        let text = shown(&names(NAMED + 3)).unwrap();
        assert!(text.ends_with("Job 9 and 3 more"), "{text}");
    }
}

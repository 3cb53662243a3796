//! Takes the cluster part away: the relays and what holds their users, and the namespaces that `install` made for them.

use serde_json::{Value, json};

use crate::cluster::{Apply, Cluster, Kind, kind};
use crate::hint::Result;
use crate::lookup::name_of;
use crate::manifest::istio::INSTALLER;
use crate::operator::apply::{Changed, Done, remove};
use crate::operator::{OURS, others};

/// What stands in the relays' namespace, in the order in which it is removed: first what routes requests there.
const CLUSTER_PART: &[&Kind] = &[
    &kind::STATEFUL_SET,
    &kind::DEPLOYMENT,
    &kind::SERVICE,
    &kind::POD_DISRUPTION_BUDGET,
    &kind::NETWORK_POLICY,
    &kind::ENVOY_FILTER,
    &kind::AUTHORIZATION_POLICY,
    &kind::PEER_AUTHENTICATION,
    &kind::SERVICE_ACCOUNT,
    &kind::ROLE,
];

/// What belongs to the whole cluster: rights go before what holds them, since users' bindings stay; a policy is out of force before it is gone.
const CLUSTER_WIDE: &[&Kind] = &[
    &kind::CLUSTER_ROLE,
    &kind::ADMISSION_POLICY_BINDING,
    &kind::ADMISSION_POLICY,
];

/// Takes the cluster part away: of this namespace, or wherever it is. A namespace goes with it if `install` made it and nothing of anybody else's is left in it.
/// Returns what was removed, and what an operator should know of namespaces that stay.
pub async fn cluster_part(
    cluster: &Cluster,
    within: Option<&str>,
) -> Result<(Vec<Changed>, Vec<String>)> {
    let mut removed = Vec::new();
    for kind in CLUSTER_PART {
        all(cluster, kind, within, &mut removed).await?;
    }
    for kind in CLUSTER_WIDE {
        all(cluster, kind, None, &mut removed).await?;
    }
    let mut notes = Vec::new();
    for around in namespaces(cluster, within).await? {
        notes.extend(release(cluster, &around, &mut removed).await?);
    }
    Ok((removed, notes))
}

/// Those that bear our label, and are not on their way out already.
async fn namespaces(cluster: &Cluster, within: Option<&str>) -> Result<Vec<Value>> {
    let mut ours = cluster.list(&kind::NAMESPACE, None, Some(OURS)).await?;
    ours.retain(|namespace| {
        namespace["metadata"]["deletionTimestamp"].is_null()
            && within.is_none_or(|within| name_of(namespace) == within)
    });
    Ok(ours)
}

/// Deletes a namespace, or gives it back to whoever made it. Returns why it is kept.
async fn release(
    cluster: &Cluster,
    namespace: &Value,
    removed: &mut Vec<Changed>,
) -> Result<Option<String>> {
    let name = name_of(namespace);
    if !is_made_by_us(namespace) {
        removed.extend(without_labels(cluster, name, namespace).await?);
        return Ok(None);
    }
    let theirs = others::find(cluster, name).await?;
    if theirs.is_none() {
        remove(cluster, &kind::NAMESPACE, None, name, removed).await?;
    }
    Ok(theirs.map(|theirs| {
        format!(
            "the namespace {name} is kept, since it holds what is not ours: {theirs}; to remove it, take that away and run this again"
        )
    }))
}

/// Whoever else made a namespace, or wrote to it since, is among its managers.
fn is_made_by_us(namespace: &Value) -> bool {
    let managers = namespace["metadata"]["managedFields"].as_array();
    managers.is_some_and(|all| {
        let mut writers = all.iter().filter(|one| one["subresource"] != "status");
        writers.all(|one| one["manager"] == INSTALLER)
    })
}

/// Takes the labels off that `install` put onto a namespace, the one for sidecars among them: applied without any, those that it keeps alone are gone.
async fn without_labels(cluster: &Cluster, name: &str, before: &Value) -> Result<Option<Changed>> {
    let bare = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let after = cluster.apply(&bare, INSTALLER, Apply::default()).await?;
    let is_changed = after["metadata"]["labels"] != before["metadata"]["labels"];
    Ok(is_changed.then(|| Changed {
        object: kind::NAMESPACE.label(None, name),
        done: Done::Changed,
    }))
}

/// All of ours, each where it stands.
async fn all(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    removed: &mut Vec<Changed>,
) -> Result<()> {
    for object in cluster.list(kind, namespace, Some(OURS)).await? {
        let namespace = object["metadata"]["namespace"].as_str();
        remove(cluster, kind, namespace, name_of(&object), removed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_ours_if_nobody_else_wrote_to_it() {
        let managed = |managers: &[(&str, &str)]| {
            let field = |(manager, part): &(&str, &str)| match *part {
                "" => json!({"manager": manager}),
                part => json!({"manager": manager, "subresource": part}),
            };
            let fields: Vec<Value> = managers.iter().map(field).collect();
            json!({"metadata": {"managedFields": fields}})
        };
        let status = ("kube-controller-manager", "status");
        assert!(is_made_by_us(&managed(&[(INSTALLER, "")])));
        assert!(is_made_by_us(&managed(&[(INSTALLER, ""), status])));
        let other = ("kubectl-create", "");
        assert!(!is_made_by_us(&managed(&[other, (INSTALLER, "")])));
        assert!(!is_made_by_us(&json!({})));
    }

    #[test]
    fn nobody_has_a_right_without_the_policies_that_hold_it() {
        let of_kind = |wanted: &Kind| CLUSTER_WIDE.iter().position(|kind| *kind == wanted);
        assert!(of_kind(&kind::CLUSTER_ROLE) < of_kind(&kind::ADMISSION_POLICY_BINDING));
        assert!(of_kind(&kind::ADMISSION_POLICY_BINDING) < of_kind(&kind::ADMISSION_POLICY));
    }

    #[test]
    fn every_object_that_is_installed_is_of_a_kind_that_is_removed() {
        use crate::manifest::istio::{example, install, names};
        for object in install::cluster_objects(&example::install()).unwrap() {
            let kind = Kind::of(object.value()).unwrap();
            let known = CLUSTER_PART.iter().chain(CLUSTER_WIDE);
            assert!(
                known.chain(&[&kind::NAMESPACE]).any(|known| *known == kind),
                "{} would stay behind",
                object.kind()
            );
            assert_eq!(
                object.value()["metadata"]["labels"][names::MANAGED_BY],
                names::MANAGER,
                "{} would not be found again",
                object.name()
            );
        }
    }
}

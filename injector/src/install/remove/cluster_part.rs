//! Takes the cluster part away: relays, module server, controller and what goes with them. The namespace stays.

use intercept_kube::resolve::name_of;
use intercept_kube::{Apply, Cluster, Kind, kind};
use intercept_manifest::istio::{INSTALLER, resource};
use serde_json::{Value, json};

use crate::error::Result;
use crate::install::apply::{CLUSTER_WIDE, Changed, Done, remove};
use crate::install::{OURS, intercepts};
use crate::shell::quote;

/// What stands in the relays' namespace, in the order in which it is removed: first what writes the mesh, then what routes requests there.
const CLUSTER_PART: &[&Kind] = &[
    &kind::DEPLOYMENT,
    &kind::STATEFUL_SET,
    &kind::SERVICE,
    &kind::POD_DISRUPTION_BUDGET,
    &kind::NETWORK_POLICY,
    &kind::ENVOY_FILTER,
    &kind::SIDECAR,
    &kind::AUTHORIZATION_POLICY,
    &kind::PEER_AUTHENTICATION,
    &kind::SERVICE_ACCOUNT,
    &kind::ROLE,
];

/// Takes the cluster part away: of this namespace, or wherever it is. Rights go before the policies that hold them, since users' bindings stay.
/// Returns what was removed, and what an operator should know of what stays.
pub async fn cluster_part(
    cluster: &Cluster,
    within: Option<&str>,
) -> Result<(Vec<Changed>, Vec<String>)> {
    let mut removed = Vec::new();
    for kind in CLUSTER_PART {
        all(cluster, kind, within, &mut removed).await?;
    }
    // Bindings of the controller's in namespaces whose workloads were taken away by hand.
    all(cluster, &kind::ROLE_BINDING, None, &mut removed).await?;
    for kind in CLUSTER_WIDE {
        all(cluster, kind, None, &mut removed).await?;
    }
    let mut notes = Vec::new();
    notes.extend(definition(cluster, &mut removed).await?);
    for namespace in namespaces(cluster, within).await? {
        let name = name_of(&namespace);
        removed.extend(without_labels(cluster, name, &namespace).await?);
        let delete = format!("kubectl delete namespace {}", quote(name));
        notes.push(format!(
            "the namespace {name} is left; to delete it with all that is in it: {delete}"
        ));
    }
    Ok((removed, notes))
}

/// The definition of Intercepts, unless some are left: they would be deleted with it. Returns why it stays.
async fn definition(cluster: &Cluster, removed: &mut Vec<Changed>) -> Result<Option<String>> {
    let left = intercepts::list(cluster, None).await?;
    if left.is_empty() {
        let name = resource::definition().name().to_owned();
        let kind = &kind::CUSTOM_RESOURCE_DEFINITION;
        remove(cluster, kind, None, &name, removed).await?;
        return Ok(None);
    }
    Ok(Some(format!(
        "the definition of Intercepts is left, since {} of workloads that are not prepared are left; to delete them: kubectl delete intercepts -A --all; then run this again",
        left.len()
    )))
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
    fn nobody_has_a_right_without_the_policies_that_hold_it() {
        let of_kind = |wanted: &Kind| CLUSTER_WIDE.iter().position(|kind| *kind == wanted);
        assert!(of_kind(&kind::CLUSTER_ROLE) < of_kind(&kind::ADMISSION_POLICY_BINDING));
        assert!(of_kind(&kind::ADMISSION_POLICY_BINDING) < of_kind(&kind::ADMISSION_POLICY));
    }

    #[test]
    fn every_object_that_is_installed_is_of_a_kind_that_is_removed() {
        use intercept_manifest::istio::{example, install, names};
        for object in install::cluster_objects(&example::install()).unwrap() {
            let kind = Kind::of(object.value()).unwrap();
            let known = CLUSTER_PART.iter().chain(CLUSTER_WIDE);
            let mut known = known.chain(&[&kind::NAMESPACE, &kind::CUSTOM_RESOURCE_DEFINITION]);
            assert!(
                known.any(|known| *known == kind),
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

//! Applies objects in their order, and takes away those of ours that are no longer among them.

use std::collections::BTreeSet;
use std::time::Duration;

use intercept_kube::resolve::name_of;
use intercept_kube::{Apply, Cluster, ClusterError, Kind, kind};
use intercept_manifest::istio::{INSTALLER, Object};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::error::{CliError, Result};
use crate::shell::quote;

/// How long the API server may take to serve objects of a new kind.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// `Deployment injector-system/injector-module`.
    pub object: String,
    /// What was done.
    pub done: Done,
}

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// It was not there before.
    Created,
    /// It was there and is different now.
    Changed,
    /// It was there, just so.
    Unchanged,
    /// It is gone.
    Removed,
}

impl Done {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        }
    }
}

/// Applies everything, in this order; after the definition of a kind, waits until there is such a kind. Ends at the first object that is refused.
pub async fn apply(cluster: &Cluster, objects: &[Object], take_over: bool) -> Result<Vec<Changed>> {
    let how = Apply {
        force: take_over,
        dry_run: false,
    };
    let mut changed = Vec::new();
    for object in objects {
        let kind = kind_of(object)?;
        let what = kind.label(object.namespace(), object.name());
        let before = cluster.get(kind, object.namespace(), object.name()).await?;
        let after = cluster
            .apply(object.value(), INSTALLER, how)
            .await
            .map_err(refused)?;
        changed.push(Changed {
            object: what,
            done: done(before.as_ref(), &after),
        });
        if *kind == kind::CUSTOM_RESOURCE_DEFINITION {
            wait_established(cluster, object.name()).await?;
        }
    }
    Ok(changed)
}

async fn wait_established(cluster: &Cluster, name: &str) -> Result<()> {
    let deadline = Instant::now() + ESTABLISHED_TIMEOUT;
    loop {
        let definition = cluster
            .get(&kind::CUSTOM_RESOURCE_DEFINITION, None, name)
            .await?;
        if is_established(&definition.unwrap_or_default()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CliError::failed(
                format!(
                    "CustomResourceDefinition {name}: not established after {} s",
                    ESTABLISHED_TIMEOUT.as_secs()
                ),
                format!("kubectl describe crd {name}"),
            ));
        }
        sleep(LOOK).await;
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Established" && one["status"] == "True")
}

fn done(before: Option<&Value>, after: &Value) -> Done {
    match before {
        None => Done::Created,
        Some(before) if wanted(before) == wanted(after) => Done::Unchanged,
        Some(_) => Done::Changed,
    }
}

/// An object without what the cluster itself keeps of it: a controller may write its status at any moment, and the version with it.
fn wanted(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for kept in ["resourceVersion", "generation", "managedFields"] {
            metadata.remove(kept);
        }
    }
    object
}

/// In the relays' namespace: the Services of relays that are no longer wanted.
pub const RELAYS: &[&Kind] = &[&kind::SERVICE];

/// In a namespace of workloads: the rules for connections to such relays.
pub const RULES: &[&Kind] = &[&kind::DESTINATION_RULE];

/// Of the whole cluster: what an earlier version made, its policies for instance.
pub const CLUSTER_WIDE: &[&Kind] = &[
    &kind::CLUSTER_ROLE_BINDING,
    &kind::CLUSTER_ROLE,
    &kind::ADMISSION_POLICY_BINDING,
    &kind::ADMISSION_POLICY,
];

/// Objects of ours, of these kinds and in this namespace (or of the whole cluster), that are not among `objects`; each with its name.
pub async fn surplus(
    cluster: &Cluster,
    namespace: Option<&str>,
    kinds: &[&'static Kind],
    objects: &[Object],
) -> Result<Vec<(&'static Kind, String)>> {
    let kept: BTreeSet<(&str, &str)> = objects
        .iter()
        .filter(|object| object.namespace() == namespace)
        .map(|object| (object.kind(), object.name()))
        .collect();
    let mut surplus = Vec::new();
    for kind in kinds {
        let ours = cluster.list(kind, namespace, Some(super::OURS)).await?;
        let names = ours.iter().map(name_of);
        let names = names.filter(|name| !kept.contains(&(kind.name, name)));
        surplus.extend(names.map(|name| (*kind, name.to_owned())));
    }
    Ok(surplus)
}

/// Removes them.
pub async fn prune(
    cluster: &Cluster,
    namespace: Option<&str>,
    kinds: &[&'static Kind],
    objects: &[Object],
) -> Result<Vec<Changed>> {
    let mut changed = Vec::new();
    for (kind, name) in surplus(cluster, namespace, kinds, objects).await? {
        remove(cluster, kind, namespace, &name, &mut changed).await?;
    }
    Ok(changed)
}

/// Deletes an object and writes down that it did; one that is gone already is none of its doing.
pub async fn remove(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    name: &str,
    changed: &mut Vec<Changed>,
) -> Result<()> {
    if cluster.delete(kind, namespace, name).await? {
        changed.push(Changed {
            object: kind.label(namespace, name),
            done: Done::Removed,
        });
    }
    Ok(())
}

/// The kind of an object that was rendered; only a fault of this build can make it an error.
pub fn kind_of(object: &Object) -> Result<&'static Kind> {
    let unknown =
        || ClusterError::UnknownKind(format!("{} {}", object.api_version(), object.kind()));
    Ok(Kind::of(object.value()).ok_or_else(unknown)?)
}

fn refused(error: ClusterError) -> CliError {
    if error.code() != Some(409) {
        return error.into();
    }
    CliError::failed(
        error,
        format!(
            "another program keeps these fields: have it apply what this prints: injector render istio --help; or take them over: injector install … {}",
            quote("--force-conflicts")
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_a_controller_writes_is_no_change_and_a_spec_is() {
        let before = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"x": 1}});
        let mut after = before.clone();
        after["metadata"]["resourceVersion"] = json!("2");
        after["status"] = json!({"observedGeneration": 1});
        assert!(matches!(done(Some(&before), &after), Done::Unchanged));
        after["spec"]["x"] = json!(2);
        assert!(matches!(done(Some(&before), &after), Done::Changed));
        assert!(matches!(done(None, &after), Done::Created));
    }
}

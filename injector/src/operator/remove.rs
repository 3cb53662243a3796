//! Takes away what `install` applied, and only that.

use serde_json::Value;

use super::OURS;
use super::apply::{Changed, Done};
use super::plan::live;
use crate::cluster::{Cluster, Kind, kind};
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::lookup::{self, Wanted};
use crate::manifest::istio::names;

/// What stands in the relay's namespace, in the order in which it is removed: first what routes requests there.
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

/// What users keep in a namespace; as long as there is some, the namespace stays.
const OF_OTHERS: &[&Kind] = &[
    &kind::SECRET,
    &kind::CONFIG_MAP,
    &kind::SERVICE,
    &kind::DEPLOYMENT,
    &kind::STATEFUL_SET,
    &kind::DAEMON_SET,
    &kind::ROLE_BINDING,
];

/// Every namespace has these, or the mesh puts them there.
const IN_EVERY_NAMESPACE: &[&str] = &["kube-root-ca.crt", "istio-ca-root-cert", "istio-ca-crl"];

/// A workload that was prepared: its WasmPlugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    plugin: Value,
}

impl Prepared {
    fn metadata(&self, key: &str) -> &str {
        self.plugin["metadata"][key].as_str().unwrap_or_default()
    }

    /// `Deployment/orders`.
    pub fn workload(&self) -> &str {
        let annotation = &self.plugin["metadata"]["annotations"][names::WORKLOAD];
        annotation.as_str().unwrap_or_default()
    }

    /// Is this the workload that an operator calls `deploy/orders` or `orders`?
    fn is_called(&self, wanted: &str) -> Result<bool> {
        let (kind, name) = self.workload().split_once('/').unwrap_or_default();
        Ok(match lookup::wanted(wanted)? {
            Wanted::Named(wanted) => name == wanted,
            Wanted::Workload(of, wanted) => kind == of.name() && name == wanted,
            // The Service may be gone by now; what was prepared is named by its workload.
            Wanted::Service(_) => false,
        })
    }
}

/// The prepared workloads of a namespace, or of all.
pub async fn prepared(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Prepared>> {
    let plugins = cluster
        .list(&kind::WASM_PLUGIN, namespace, Some(OURS))
        .await?;
    Ok(plugins
        .into_iter()
        .map(|plugin| Prepared { plugin })
        .collect())
}

/// Those that an operator names; each must be there.
pub fn named(prepared: Vec<Prepared>, namespace: &str, wanted: &[String]) -> Result<Vec<Prepared>> {
    let mut chosen: Vec<Prepared> = Vec::new();
    for name in wanted {
        let mut found = Vec::new();
        for workload in &prepared {
            if workload.is_called(name)? {
                found.push(workload.clone());
            }
        }
        if found.is_empty() {
            let there: Vec<&str> = prepared.iter().map(Prepared::workload).collect();
            return Err(Failure::failed(
                format!(
                    "namespace {namespace}: {name} was not prepared, expected one of: {}",
                    there.join(", ")
                ),
                "another namespace: -n NAME; kubectl get wasmplugins -A -l app.kubernetes.io/managed-by=injector",
            ));
        }
        chosen.extend(
            found
                .into_iter()
                .filter(|one| !chosen.contains(one))
                .collect::<Vec<_>>(),
        );
    }
    Ok(chosen)
}

/// Refuses while intercepts are live.
pub async fn check_unused(cluster: &Cluster, prepared: &[Prepared], command: &str) -> Result<()> {
    let now = cluster.server_time().await?;
    for workload in prepared {
        let names: Vec<String> = live(&workload.plugin, now)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        if !names.is_empty() {
            let namespace = workload.metadata("namespace");
            return Err(Failure::failed(
                format!(
                    "{} in {namespace} is intercepted by {}",
                    workload.workload(),
                    names.join(", ")
                ),
                format!(
                    "injector leave -n {} --force {}; or: {command} --force",
                    quote(namespace),
                    names.join(" ")
                ),
            ));
        }
    }
    Ok(())
}

/// Takes the preparation away: entries and filter first, so that nothing asks for what goes next.
pub async fn workloads(cluster: &Cluster, prepared: &[Prepared]) -> Result<Vec<Changed>> {
    let mut removed = Vec::new();
    let mut namespaces: Vec<&str> = Vec::new();
    for workload in prepared {
        let (namespace, name) = (workload.metadata("namespace"), workload.metadata("name"));
        remove(
            cluster,
            &kind::WASM_PLUGIN,
            Some(namespace),
            name,
            &mut removed,
        )
        .await?;
        let filters = cluster
            .list(&kind::ENVOY_FILTER, Some(namespace), Some(OURS))
            .await?;
        for filter in &filters {
            let metadata = &filter["metadata"];
            if metadata["annotations"][names::WORKLOAD] == workload.workload() {
                let name = metadata["name"].as_str().unwrap_or_default();
                remove(
                    cluster,
                    &kind::ENVOY_FILTER,
                    Some(namespace),
                    name,
                    &mut removed,
                )
                .await?;
            }
        }
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    for namespace in namespaces {
        if self::prepared(cluster, Some(namespace)).await?.is_empty() {
            all(
                cluster,
                &kind::DESTINATION_RULE,
                Some(namespace),
                &mut removed,
            )
            .await?;
        }
    }
    Ok(removed)
}

/// Takes the cluster part away. The namespace goes with it if nothing of anybody else's is left in it.
pub async fn cluster_part(cluster: &Cluster, namespace: &str) -> Result<Vec<Changed>> {
    let mut removed = Vec::new();
    for kind in CLUSTER_PART {
        all(cluster, kind, Some(namespace), &mut removed).await?;
    }
    for kind in CLUSTER_WIDE {
        all(cluster, kind, None, &mut removed).await?;
    }
    let around = cluster
        .get(&kind::NAMESPACE, None, namespace)
        .await?
        .unwrap_or_default();
    let is_ours = around["metadata"]["labels"][names::MANAGED_BY] == names::MANAGER;
    if is_ours && !is_used(cluster, namespace).await? {
        remove(cluster, &kind::NAMESPACE, None, namespace, &mut removed).await?;
    }
    Ok(removed)
}

async fn is_used(cluster: &Cluster, namespace: &str) -> Result<bool> {
    for kind in OF_OTHERS {
        for object in cluster.list(kind, Some(namespace), None).await? {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().unwrap_or_default();
            let is_ours = metadata["labels"][names::MANAGED_BY] == names::MANAGER;
            if !is_ours && !IN_EVERY_NAMESPACE.contains(&name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn all(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    removed: &mut Vec<Changed>,
) -> Result<()> {
    for object in cluster.list(kind, namespace, Some(OURS)).await? {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        remove(cluster, kind, namespace, name, removed).await?;
    }
    Ok(())
}

async fn remove(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    name: &str,
    removed: &mut Vec<Changed>,
) -> Result<()> {
    if cluster.delete(kind, namespace, name).await? {
        removed.push(Changed {
            object: kind.label(namespace, name),
            done: Done::Removed,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(label: &str) -> Prepared {
        Prepared {
            plugin: json!({"metadata": {"annotations": {"injector.dev/workload": label}}}),
        }
    }

    #[test]
    fn a_workload_is_named_as_it_was_when_it_was_prepared() {
        let all = || {
            vec![
                workload("Deployment/orders"),
                workload("StatefulSet/orders"),
                workload("Deployment/other"),
            ]
        };
        let choose = |name: &str| named(all(), "shop", &[name.to_owned()]).unwrap();
        assert_eq!(choose("orders").len(), 2);
        assert_eq!(choose("sts/orders"), [workload("StatefulSet/orders")]);
        let error = named(all(), "shop", &["ds/orders".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ds/orders was not prepared, expected one of: Deployment/orders"),
            "{error}"
        );
    }

    #[test]
    fn nobody_has_a_right_without_the_policies_that_hold_it() {
        let of_kind = |wanted: &Kind| CLUSTER_WIDE.iter().position(|kind| *kind == wanted);
        assert!(of_kind(&kind::CLUSTER_ROLE) < of_kind(&kind::ADMISSION_POLICY_BINDING));
        assert!(of_kind(&kind::ADMISSION_POLICY_BINDING) < of_kind(&kind::ADMISSION_POLICY));
    }

    #[test]
    fn every_object_that_is_installed_is_of_a_kind_that_is_removed() {
        use crate::manifest::istio::{example, install};
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

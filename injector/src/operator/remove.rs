//! Takes away what `install` applied, and only that.

mod cluster_part;

use serde_json::{Value, json};
use tokio::time::sleep;

pub use self::cluster_part::cluster_part;
use super::OURS;
use super::apply::{Changed, remove};
use super::plan::live;
use crate::cluster::{Cluster, kind};
use crate::hint::{Failure, Result};
use crate::lookup::{self, Wanted, name_of};
use crate::manifest::istio::{INSTALLER, names};
use crate::mesh::{self, Mesh, USUAL_MESH, list_ours};

/// A workload that was prepared, or of whose preparation something is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    namespace: String,
    workload: String,
    /// Its WasmPlugin; `None` where an uninstallation broke off, or somebody deleted it by hand.
    plugin: Option<Value>,
}

impl Prepared {
    /// What an object of ours says of the workload that it is for.
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        Self {
            namespace: text(&metadata["namespace"]),
            workload: text(&metadata["annotations"][names::WORKLOAD]),
            plugin: None,
        }
    }

    /// `Deployment/orders`.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.namespace, &self.workload) == (&other.namespace, &other.workload)
    }

    /// The names of the intercepts that are live.
    fn live(&self, now: u64) -> Vec<String> {
        let live = self.plugin.iter().flat_map(|plugin| live(plugin, now));
        live.map(|(name, _)| name).collect()
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

/// The prepared workloads of a namespace, or of all; also those of which only filters are left.
pub async fn prepared(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Prepared>> {
    let ours = |kind| cluster.list(kind, namespace, Some(OURS));
    let (plugins, filters) = tokio::try_join!(ours(&kind::WASM_PLUGIN), ours(&kind::ENVOY_FILTER))?;
    Ok(known(plugins, &filters))
}

fn known(plugins: Vec<Value>, filters: &[Value]) -> Vec<Prepared> {
    let with_plugin = plugins.into_iter().map(|plugin| Prepared {
        plugin: Some(plugin.clone()),
        ..Prepared::of(&plugin)
    });
    let mut known: Vec<Prepared> = with_plugin.collect();
    for left in filters.iter().map(Prepared::of) {
        // The relays' own filter is of no workload.
        if !left.workload.is_empty() && !known.iter().any(|one| one.is_same(&left)) {
            known.push(left);
        }
    }
    known
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
        let names = workload.live(now);
        if !names.is_empty() {
            let Prepared {
                namespace,
                workload,
                ..
            } = workload;
            return Err(Failure::failed(
                format!(
                    "{workload} in {namespace} is intercepted by {}",
                    names.join(", ")
                ),
                format!(
                    "injector leave{} --force {}; or: {command} --force",
                    cluster.place_flags(Some(namespace)),
                    names.join(" ")
                ),
            ));
        }
    }
    Ok(())
}

/// Takes the preparation away, of these workloads in this namespace, or in all: entries and filter first, so that nothing asks for what goes next.
pub async fn workloads(
    cluster: &Cluster,
    within: Option<&str>,
    prepared: &[Prepared],
) -> Result<Vec<Changed>> {
    end_intercepts(cluster, prepared).await?;
    let mut removed = Vec::new();
    for Prepared {
        namespace, plugin, ..
    } in prepared
    {
        if let Some(plugin) = plugin {
            let name = name_of(plugin);
            remove(
                cluster,
                &kind::WASM_PLUGIN,
                Some(namespace),
                name,
                &mut removed,
            )
            .await?;
        }
    }
    for workload in prepared {
        filters(cluster, workload, &mut removed).await?;
    }
    if within.is_none() {
        stray_filters(cluster, &mut removed).await?;
    }
    unused_rules(cluster, within, &mut removed).await?;
    Ok(removed)
}

/// Takes the entries of live intercepts out, and waits until the mesh knows, and a while for what is under way: a request that was already decided still needs its cluster, and connections that are
/// drained keep the filter, with what it was told last, for longer than the WasmPlugin is there.
async fn end_intercepts(cluster: &Cluster, prepared: &[Prepared]) -> Result<()> {
    let now = cluster.server_time().await?;
    let none = json!([{"op": "replace", "path": "/spec/pluginConfig/intercepts", "value": {}}]);
    let mut ended = Vec::new();
    for workload in prepared {
        if let (Some(plugin), [_, ..]) = (&workload.plugin, workload.live(now).as_slice()) {
            let namespace = Some(workload.namespace.as_str());
            let name = name_of(plugin);
            cluster
                .patch_json(&kind::WASM_PLUGIN, namespace, name, &none, INSTALLER)
                .await?;
            mesh::tell_removed(cluster, plugin, now).await;
            ended.extend(addresses(plugin));
        }
    }
    if !ended.is_empty() {
        sleep(USUAL_MESH).await;
        let mut mesh = Mesh::new(cluster.clone());
        mesh.everywhere();
        let tell = || {
            eprintln!("note: waiting for requests to end that are under way to developer machines");
        };
        mesh.wait_idle(&ended, tell).await;
    }
    Ok(())
}

/// The tunnels of a plugin's entries.
fn addresses(plugin: &Value) -> impl Iterator<Item = String> {
    let entries = plugin["spec"]["pluginConfig"]["intercepts"].as_object();
    let entries = entries.into_iter().flatten();
    entries.filter_map(|(_, entry)| entry["address"].as_str().map(str::to_owned))
}

/// The gate of a workload, and the clusters of its intercepts.
async fn filters(cluster: &Cluster, workload: &Prepared, removed: &mut Vec<Changed>) -> Result<()> {
    let namespace = Some(workload.namespace.as_str());
    let filters = cluster
        .list(&kind::ENVOY_FILTER, namespace, Some(OURS))
        .await?;
    for filter in filters {
        if Prepared::of(&filter).is_same(workload) {
            remove(
                cluster,
                &kind::ENVOY_FILTER,
                namespace,
                name_of(&filter),
                removed,
            )
            .await?;
        }
    }
    Ok(())
}

/// Those of no workload that is known, whoever wrote them and whatever they lack, in all namespaces. The relays' own goes with the relays.
async fn stray_filters(cluster: &Cluster, removed: &mut Vec<Changed>) -> Result<()> {
    let kind = &kind::ENVOY_FILTER;
    for filter in list_ours(cluster, kind, None).await? {
        let name = name_of(&filter);
        if name != names::RELAY {
            let namespace = filter["metadata"]["namespace"].as_str();
            remove(cluster, kind, namespace, name, removed).await?;
        }
    }
    Ok(())
}

/// The rules for connections to the relays, where no workload of their namespace is prepared any more.
async fn unused_rules(
    cluster: &Cluster,
    within: Option<&str>,
    removed: &mut Vec<Changed>,
) -> Result<()> {
    let left = prepared(cluster, within).await?;
    for rule in cluster
        .list(&kind::DESTINATION_RULE, within, Some(OURS))
        .await?
    {
        let namespace = rule["metadata"]["namespace"].as_str().unwrap_or_default();
        if left.iter().all(|workload| workload.namespace != namespace) {
            let namespace = Some(namespace);
            remove(
                cluster,
                &kind::DESTINATION_RULE,
                namespace,
                name_of(&rule),
                removed,
            )
            .await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(label: &str) -> Prepared {
        Prepared {
            namespace: "shop".to_owned(),
            workload: label.to_owned(),
            plugin: None,
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
    fn a_workload_is_known_by_what_is_left_of_it() {
        let object = |namespace: &str, label: Option<&str>| {
            let annotations = json!({"injector.dev/workload": label});
            json!({"metadata": {"name": "x", "namespace": namespace, "annotations": annotations}})
        };
        let plugins = vec![object("shop", Some("Deployment/orders"))];
        let filters = [
            object("shop", Some("Deployment/orders")),
            object("shop", Some("Deployment/left")),
            object("shop", Some("Deployment/left")),
            object("other", Some("Deployment/orders")),
            object("injector-system", None),
        ];
        let known = known(plugins, &filters);
        let names: Vec<(&str, &str, bool)> = known
            .iter()
            .map(|one| (&*one.namespace, one.workload(), one.plugin.is_some()))
            .collect();
        assert_eq!(
            names,
            [
                ("shop", "Deployment/orders", true),
                ("shop", "Deployment/left", false),
                ("other", "Deployment/orders", false),
            ]
        );
    }
}

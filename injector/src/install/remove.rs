//! Takes away what `install` applied, and only that.

mod cluster_part;

use std::time::Duration;

use futures_util::future::try_join_all;
use intercept_manifest::istio::resource::Intercept;
use intercept_manifest::istio::{INSTALLER, names};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use intercept_kube::resolve::{self, WorkloadName, name_of};
use intercept_kube::{Cluster, ClusterError, kind};

pub use self::cluster_part::cluster_part;
use super::apply::{Changed, Done, remove};
use super::{OURS, intercepts};
use crate::error::{CliError, Result};
use crate::mesh::{USUAL_MESH, list_ours, wait_idle};
use crate::shell::context_flags;

/// How long the controller may take to empty the text of a workload whose Intercepts are gone.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A workload that was prepared, or of whose preparation something is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    namespace: String,
    workload: String,
    /// Its WasmPlugin; `None` where an uninstallation broke off, or it was deleted by hand.
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

    /// Is this Intercept one of its own?
    fn has(&self, intercept: &Intercept) -> bool {
        self.namespace == intercept.namespace() && self.workload == intercept.spec.workload.label()
    }

    /// Is this the workload that an operator calls `deploy/orders` or `orders`?
    fn is_called(&self, wanted: &str) -> Result<bool> {
        let (kind, name) = self.workload().split_once('/').unwrap_or_default();
        Ok(match resolve::wanted(wanted)? {
            WorkloadName::Named(wanted) => name == wanted,
            WorkloadName::Workload(of, wanted) => kind == of.name() && name == wanted,
            // The Service may be gone by now; what was prepared is named by its workload.
            WorkloadName::Service(_) => false,
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
            return Err(CliError::failed(
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

/// Refuses while Intercepts of these workloads are live.
pub async fn check_unused(
    cluster: &Cluster,
    within: Option<&str>,
    prepared: &[Prepared],
    command: &str,
) -> Result<()> {
    let now = cluster.server_time().await?;
    let mut live = intercepts::list(cluster, within).await?;
    live.retain(|one| intercepts::is_live(one, now));
    for workload in prepared {
        let own = live.iter().filter(|one| workload.has(one));
        let names: Vec<&str> = own.map(Intercept::name).collect();
        if !names.is_empty() {
            let Prepared {
                namespace,
                workload,
                ..
            } = workload;
            return Err(CliError::failed(
                format!(
                    "{workload} in {namespace} is intercepted by {}",
                    names.join(", ")
                ),
                format!(
                    "injector leave{} --force {}; or: {command} --force",
                    context_flags(&cluster.flags(Some(namespace))),
                    names.join(" ")
                ),
            ));
        }
    }
    Ok(())
}

/// Takes the preparation away, of these workloads in this namespace, or in all: Intercepts and filter first, so that nothing asks for what goes next.
pub async fn workloads(
    cluster: &Cluster,
    within: Option<&str>,
    prepared: &[Prepared],
) -> Result<Vec<Changed>> {
    let mut removed = end_intercepts(cluster, within, prepared).await?;
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
    of_unused_namespaces(cluster, within, prepared, &mut removed).await?;
    Ok(removed)
}

/// Ends the Intercepts of the workloads, and waits until no proxy has them, and a while for what is under way: a request that was already decided still needs its cluster, and connections that are
/// drained keep the filter, with what it was told last, for longer than the WasmPlugin is there.
async fn end_intercepts(
    cluster: &Cluster,
    within: Option<&str>,
    prepared: &[Prepared],
) -> Result<Vec<Changed>> {
    let mut ending = intercepts::list(cluster, within).await?;
    ending.retain(|one| prepared.iter().any(|workload| workload.has(one)));
    let is_answered = ending.is_empty() || intercepts::end(cluster, within, &ending).await?;
    let timeout = match is_answered {
        true => EMPTY_TIMEOUT,
        false => Duration::ZERO,
    };
    let plugins = prepared.iter().filter_map(|one| one.plugin.as_ref());
    let emptied = try_join_all(plugins.map(|plugin| empty(cluster, plugin, timeout))).await?;
    if emptied.contains(&true) {
        sleep(USUAL_MESH).await;
    }
    if !ending.is_empty() {
        let tell = || {
            eprintln!("note: waiting for requests to end that are under way to developer machines");
        };
        let addresses = ending.iter().map(|one| one.spec.tunnel.address.as_str());
        wait_idle(cluster, &addresses.collect::<Vec<_>>(), tell).await;
    }
    let ended = ending.iter().map(|one| Changed {
        object: kind::INTERCEPT.label(Some(one.namespace()), one.name()),
        done: Done::Removed,
    });
    Ok(ended.collect())
}

/// Waits until a plugin has no intercepts. `true`: the controller did not take them out in time, so it was done here, and the proxies may not know yet.
async fn empty(
    cluster: &Cluster,
    plugin: &Value,
    timeout: Duration,
) -> std::result::Result<bool, ClusterError> {
    let (namespace, name) = (plugin["metadata"]["namespace"].as_str(), name_of(plugin));
    let deadline = Instant::now() + timeout;
    loop {
        let there = cluster.get(&kind::WASM_PLUGIN, namespace, name).await?;
        if there.is_none_or(|there| is_empty(&there)) {
            return Ok(false);
        }
        if Instant::now() >= deadline {
            break;
        }
        sleep(LOOK).await;
    }
    let none = json!([{"op": "remove", "path": "/spec/pluginConfig/intercepts"}]);
    cluster
        .patch_json(&kind::WASM_PLUGIN, namespace, name, &none, INSTALLER)
        .await?;
    Ok(true)
}

/// A map is what versions before Intercepts wrote.
fn is_empty(plugin: &Value) -> bool {
    match &plugin["spec"]["pluginConfig"]["intercepts"] {
        Value::Null => true,
        Value::String(text) => ["", "{}"].contains(&text.as_str()),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
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

/// Those of no known workload, in all namespaces, whatever wrote them and whatever they lack. The relays' own goes with the relays.
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

/// What workloads of a namespace share, where none is prepared any more: the rules for connections to the relays, and the controller's rights.
async fn of_unused_namespaces(
    cluster: &Cluster,
    within: Option<&str>,
    prepared_before: &[Prepared],
    removed: &mut Vec<Changed>,
) -> Result<()> {
    let left = prepared(cluster, within).await?;
    let is_used = |namespace: &str| left.iter().any(|one| one.namespace == namespace);
    let rules = cluster.list(&kind::DESTINATION_RULE, within, Some(OURS));
    for rule in rules.await? {
        let namespace = rule["metadata"]["namespace"].as_str().unwrap_or_default();
        if !is_used(namespace) {
            let (kind, name) = (&kind::DESTINATION_RULE, name_of(&rule));
            remove(cluster, kind, Some(namespace), name, removed).await?;
        }
    }
    // By its name: an operator may not list these.
    let mut namespaces: Vec<&str> = prepared_before
        .iter()
        .map(|one| one.namespace.as_str())
        .chain(within)
        .collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    for namespace in namespaces.into_iter().filter(|one| !is_used(one)) {
        let (kind, name) = (&kind::ROLE_BINDING, names::WORKLOAD_ROLE);
        remove(cluster, kind, Some(namespace), name, removed).await?;
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
    fn plugin_without_intercepts_is_empty() {
        let plugin =
            |intercepts: Value| json!({"spec": {"pluginConfig": {"intercepts": intercepts}}});
        for none in [Value::Null, json!(""), json!("{}"), json!({})] {
            assert!(is_empty(&plugin(none.clone())), "{none}");
        }
        for some in [json!(r#"{"bob":{}}"#), json!({"bob": {}})] {
            assert!(!is_empty(&plugin(some.clone())), "{some}");
        }
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

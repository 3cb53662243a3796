//! What the Envoy of a replica has: asked through a port-forward to its admin interface, and read.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::pods;
use crate::ask::Asked;
use crate::cluster::{Cluster, ClusterError, kind};
use crate::manifest::filter;

/// Where Envoy's admin interface is, on the pod's own loopback.
const ADMIN_PORT: u16 = 15000;

/// A replica that takes longer to say what it has does not say.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of Envoy's configuration that comes by extension config discovery.
pub const FILTERS: &str = "/config_dump?resource=ecds_filters";

/// What the replicas of a workload should have.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// The workload's namespace.
    pub namespace: String,
    /// Its pods, as kubectl's `--selector` has it.
    pub selector: String,
    /// The WasmPlugin.
    pub plugin: String,
    /// The intercept; empty: the filter itself, whatever intercepts it has.
    pub name: String,
    /// Its tunnel's address; `None`: there should be no intercept of this name.
    pub address: Option<String>,
    /// The cluster that must be there too.
    pub cluster: Option<String>,
}

/// What the filter of each replica has at the moment; `Null` for one that does not say.
pub async fn documents(
    cluster: &Cluster,
    namespace: &str,
    selector: &str,
    plugin: &str,
) -> Result<Vec<Value>, ClusterError> {
    let pods = cluster
        .list(&kind::POD, Some(namespace), Some(selector))
        .await?;
    let mut asking = JoinSet::new();
    for pod in pods.iter().filter(|pod| pods::can_be_asked(pod)) {
        let (cluster, namespace) = (cluster.clone(), namespace.to_owned());
        let (plugin, pod) = (plugin.to_owned(), pods::name_of(pod).to_owned());
        asking.spawn(async move {
            let filters = get(&cluster, &namespace, &pod, FILTERS);
            let filters = tokio::time::timeout(LOOK_TIMEOUT, filters).await;
            let filters = filters.ok().and_then(Result::ok).unwrap_or_default();
            document(&filters, &namespace, &plugin).unwrap_or_default()
        });
    }
    Ok(asking.join_all().await)
}

/// What a replica does not have yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missing {
    /// The filter, or the entry in it.
    #[default]
    Entry,
    /// The cluster; it has the entry.
    Cluster,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "Envoy has not taken the filter's configuration",
            Self::Cluster => "Envoy has not taken the intercept's cluster",
        })
    }
}

/// What of that the replica in this pod lacks; `None` where it has all.
pub async fn missing(
    cluster: &Cluster,
    awaited: &Awaited,
    pod: &str,
) -> anyhow::Result<Option<Missing>> {
    let filters = get(cluster, &awaited.namespace, pod, FILTERS).await?;
    if !has_entry(&filters, awaited) {
        return Ok(Some(Missing::Entry));
    }
    let Some(name) = &awaited.cluster else {
        return Ok(None);
    };
    let path = crate::envoy::cluster_path(name);
    let clusters = get(cluster, &awaited.namespace, pod, &path).await?;
    let found = crate::envoy::names(&clusters, "/cluster/name").any(|known| known == name);
    Ok((!found).then_some(Missing::Cluster))
}

/// The answer of a sidecar's Envoy, by way of its admin interface.
pub async fn get(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    path: &str,
) -> anyhow::Result<Value> {
    let stream = cluster.connect_pod(namespace, pod, ADMIN_PORT).await?;
    Asked::over(stream).await?.get_last(path).await
}

fn has_entry(filters: &Value, awaited: &Awaited) -> bool {
    let Some(document) = document(filters, &awaited.namespace, &awaited.plugin) else {
        return false;
    };
    match awaited.name.as_str() {
        // Where the module could not be fetched, Istio puts something else in the filter's place, which has no document.
        "" => !document.is_null(),
        name => address(&document, name) == awaited.address.as_deref(),
    }
}

/// The address under which a filter has the intercept of this name.
pub fn address<'d>(document: &'d Value, name: &str) -> Option<&'d str> {
    document["intercepts"][name]["address"].as_str()
}

/// What the filter of this WasmPlugin was given.
fn document(filters: &Value, namespace: &str, plugin: &str) -> Option<Value> {
    let ours = format!("{namespace}.{plugin}");
    let configs = filters["configs"].as_array();
    let ours = configs.into_iter().flatten().find(|config| {
        let name = config["ecds_filter"]["name"].as_str();
        name.map(plugin_of) == Some(&ours)
    })?;
    let text = filter::document_text(&ours["ecds_filter"]["typed_config"]);
    Some(
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
    )
}

/// `NAMESPACE.NAME` of the WasmPlugin for which Istio made a filter. What stands before it, and after a `~`, differs between versions of Istio; neither sign can be in the two.
pub fn plugin_of(filter: &str) -> &str {
    let last = filter.rsplit('/').next().unwrap_or(filter);
    last.split('~').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn awaited(address: Option<&str>) -> Awaited {
        Awaited {
            namespace: "shop".to_owned(),
            selector: "app=orders".to_owned(),
            plugin: "injector-deployment-orders".to_owned(),
            name: "bob".to_owned(),
            address: address.map(str::to_owned),
            cluster: None,
        }
    }

    fn dump(name: &str, document: &Value) -> Value {
        let configuration = json!({"value": document.to_string()});
        json!({"configs": [
            {"ecds_filter": {"name": "other"}},
            {"version_info": "v", "ecds_filter": {"name": name, "typed_config": {"config": {"configuration": configuration}}}},
        ]})
    }

    #[test]
    fn a_replica_has_the_intercept_when_its_filter_has_the_entry_of_this_tunnel() {
        let document = json!({"version": 1, "intercepts": {"bob": {"address": "aa"}}});
        let ours = "extenstions.istio.io/wasmplugin/shop.injector-deployment-orders";
        let dumped = dump(ours, &document);
        assert!(has_entry(&dumped, &awaited(Some("aa"))));
        assert!(!has_entry(&dumped, &awaited(Some("bb"))));
        assert!(!has_entry(&dumped, &awaited(None)));
        assert!(has_entry(
            &dump(ours, &json!({"version": 1})),
            &awaited(None)
        ));
    }

    #[test]
    fn a_replica_has_the_filter_when_it_was_given_a_document_and_not_something_in_its_place() {
        let ours = "shop.injector-deployment-orders";
        let mut filter = awaited(None);
        filter.name.clear();
        assert!(has_entry(&dump(ours, &json!({"version": 1})), &filter));
        let placeholder =
            json!({"configs": [{"ecds_filter": {"name": ours, "typed_config": {"rules": {}}}}]});
        assert!(!has_entry(&placeholder, &filter));
        assert!(!has_entry(&Value::Null, &filter));
    }

    #[test]
    fn the_filter_is_known_by_the_names_that_istio_gives_and_gave_it() {
        for name in [
            "extensions.istio.io/trafficextension/shop.injector-deployment-orders~istio-translated-wasmplugin",
            "extenstions.istio.io/wasmplugin/shop.injector-deployment-orders",
            "shop.injector-deployment-orders",
        ] {
            assert_eq!(plugin_of(name), "shop.injector-deployment-orders");
        }
    }

    #[test]
    fn another_workloads_filter_is_not_ours() {
        let document = json!({"version": 1, "intercepts": {"bob": {"address": "aa"}}});
        let other = dump("x/shop.injector-deployment-orders-2", &document);
        assert!(!has_entry(&other, &awaited(Some("aa"))));
        assert!(!has_entry(&Value::Null, &awaited(Some("aa"))));
    }
}

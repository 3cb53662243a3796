//! What the Envoy of a replica has: asked through a port-forward to its admin interface, and read.

use std::time::Duration;

use intercept_manifest::filter;
use intercept_tunnel::http_json::{JsonClient, JsonError};
use serde_json::Value;

use crate::{Cluster, ClusterError};

/// Where Envoy's admin interface is, on the pod's own loopback.
const ADMIN_PORT: u16 = 15000;

/// A replica that takes longer to say what it has does not say.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of Envoy's configuration that comes by extension config discovery.
pub const FILTERS: &str = "/config_dump?resource=ecds_filters";

/// Why a sidecar's Envoy did not say what it has.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The port-forward failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The admin interface gave no JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// What the replicas of a workload should have.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// The workload's namespace.
    pub namespace: String,
    /// Its pods, as kubectl's `--selector` has it.
    pub selector: String,
    /// The WasmPlugin whose filter they should have, whatever intercepts are in it.
    pub plugin: String,
}

/// Does the replica in this pod have the filter?
pub async fn has_filter(
    cluster: &Cluster,
    awaited: &Awaited,
    pod: &str,
) -> Result<bool, AdminError> {
    let filters = get(cluster, &awaited.namespace, pod, FILTERS).await?;
    Ok(has_document(&filters, awaited))
}

/// The answer of a sidecar's Envoy, by way of its admin interface.
pub async fn get(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    path: &str,
) -> Result<Value, AdminError> {
    let stream = cluster.connect_pod(namespace, pod, ADMIN_PORT).await?;
    Ok(JsonClient::new(stream).await?.get_last(path).await?)
}

/// Where the module could not be fetched, Istio puts something else in the filter's place, which was given no document.
fn has_document(filters: &Value, awaited: &Awaited) -> bool {
    let ours = format!("{}.{}", awaited.namespace, awaited.plugin);
    let configs = filters["configs"].as_array();
    configs.into_iter().flatten().any(|config| {
        let name = config["ecds_filter"]["name"].as_str();
        let is_ours = name.map(plugin_of) == Some(&ours);
        is_ours && filter::document_text(&config["ecds_filter"]["typed_config"]).is_some()
    })
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

    fn awaited() -> Awaited {
        Awaited {
            namespace: "shop".to_owned(),
            selector: "app=orders".to_owned(),
            plugin: "injector-deployment-orders".to_owned(),
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
    fn filter_exists_once_configured() {
        let ours = "shop.injector-deployment-orders";
        assert!(has_document(
            &dump(ours, &json!({"version": 1})),
            &awaited()
        ));
        let placeholder =
            json!({"configs": [{"ecds_filter": {"name": ours, "typed_config": {"rules": {}}}}]});
        assert!(!has_document(&placeholder, &awaited()));
        assert!(!has_document(&Value::Null, &awaited()));
    }

    #[test]
    fn filter_is_known_by_istios_names() {
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
        let other = dump(
            "x/shop.injector-deployment-orders-2",
            &json!({"version": 1}),
        );
        assert!(!has_document(&other, &awaited()));
    }
}

//! What versions before Intercepts left beside a workload: entries as a map, and EnvoyFilters that developers wrote. Removed when the workload is prepared again.

use intercept_kube::resolve::name_of;
use intercept_kube::{Cluster, kind};
use intercept_manifest::istio::{INSTALLER, Object, names};
use serde_json::json;

use super::OURS;
use super::apply::{Changed, remove};
use crate::error::Result;

/// Removes it from the workloads of these objects.
pub async fn remove_entries(cluster: &Cluster, objects: &[Object]) -> Result<Vec<Changed>> {
    let mut removed = Vec::new();
    let plugins = objects
        .iter()
        .filter(|object| object.kind() == kind::WASM_PLUGIN.name);
    for plugin in plugins {
        let (namespace, name) = (plugin.namespace(), plugin.name());
        let there = cluster.get(&kind::WASM_PLUGIN, namespace, name).await?;
        let there = there.unwrap_or_default();
        if there["spec"]["pluginConfig"]["intercepts"].is_object() {
            let entries = json!([{"op": "remove", "path": "/spec/pluginConfig/intercepts"}]);
            cluster
                .patch_json(&kind::WASM_PLUGIN, namespace, name, &entries, INSTALLER)
                .await?;
        }
        let written = format!("{OURS},{}", names::INTERCEPT);
        let filters = cluster
            .list(&kind::ENVOY_FILTER, namespace, Some(&written))
            .await?;
        let workload = &plugin.value()["metadata"]["annotations"][names::WORKLOAD];
        for filter in &filters {
            let metadata = &filter["metadata"];
            let is_old = metadata["ownerReferences"].is_null();
            if is_old && metadata["annotations"][names::WORKLOAD] == *workload {
                let name = name_of(filter);
                remove(cluster, &kind::ENVOY_FILTER, namespace, name, &mut removed).await?;
            }
        }
    }
    Ok(removed)
}

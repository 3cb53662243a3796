//! Whether the sidecars of a workload can run the filter at all.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use intercept_kube::{Cluster, kind};
use intercept_kube::{envoy_admin, pods, propagation};
use intercept_manifest::istio::Object;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::{CliError, Result};
use crate::shell::quote;

/// What Envoy runs WebAssembly with. Istio's proxies have it; builds of others may not.
const RUNTIME: &str = "envoy.wasm.runtime.v8";

/// Refuses where a sidecar says that it has no runtime: it would reject the filter, and then answer each request of the workload with 500. One that does not say what it has may have it.
pub async fn check(cluster: &Cluster, objects: &[Object]) -> Result<()> {
    let plugins = objects
        .iter()
        .filter(|object| object.kind() == "WasmPlugin");
    let found = join_all(plugins.map(|plugin| without(cluster, plugin.value()))).await;
    let Some((namespace, pod)) = found.into_iter().flatten().next() else {
        return Ok(());
    };
    Err(CliError::failed(
        format!(
            "pod {pod}: its sidecar's Envoy was built without {RUNTIME}, expected one that runs WebAssembly, as Istio's own does"
        ),
        format!(
            "kubectl -n {} get pod {} -o yaml",
            quote(&namespace),
            quote(&pod)
        ),
    ))
}

/// The namespace and the name of a pod of this WasmPlugin's whose Envoy has none. Of those with the same image one is asked.
async fn without(cluster: &Cluster, plugin: &Value) -> Option<(String, String)> {
    let namespace = plugin["metadata"]["namespace"].as_str()?;
    let selector = propagation::selector_of(plugin);
    let replicas = cluster
        .list(&kind::POD, Some(namespace), Some(&selector))
        .await
        .ok()?;
    let asked = replicas.iter().filter(|pod| pods::can_be_asked(pod));
    let asked = asked.filter_map(|pod| Some((pods::sidecar(pod)?["image"].as_str()?, pod)));
    let asked: BTreeMap<&str, &Value> = asked.collect();
    let answers = asked.into_values().map(async |pod| {
        let name = pods::name_of(pod);
        let asking = envoy_admin::get(cluster, namespace, name, "/server_info");
        let info = timeout(envoy_admin::LOOK_TIMEOUT, asking)
            .await
            .ok()?
            .ok()?;
        is_without(&info).then(|| (namespace.to_owned(), name.to_owned()))
    });
    join_all(answers).await.into_iter().flatten().next()
}

/// What an Envoy has it tells by <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/core/v3/base.proto#config-core-v3-node>.
fn is_without(info: &Value) -> bool {
    let extensions = info["node"]["extensions"].as_array();
    extensions.is_some_and(|all| all.iter().all(|extension| extension["name"] != RUNTIME))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_envoy_that_says_what_it_has_can_be_without() {
        let with = |names: &[&str]| {
            let extensions = names.iter().map(|name| json!({"name": name}));
            let extensions: Vec<Value> = extensions.collect();
            json!({"node": {"extensions": extensions}})
        };
        let null = "envoy.wasm.runtime.null";
        assert!(is_without(&with(&[null, "envoy.filters.http.wasm"])));
        assert!(!is_without(&with(&[null, RUNTIME])));
        assert!(!is_without(&json!({"node": {}})));
        assert!(!is_without(&json!({})));
    }
}

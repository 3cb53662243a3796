//! What a sidecar's Envoy refused, by its own counters: will the filter still come?

use std::collections::BTreeMap;

use serde_json::Value;

use super::envoy_admin::{Awaited, plugin_of};
use crate::Cluster;

/// What Envoy refused since it started.
pub const REJECTED: &str = "/stats?filter=update_rejected&format=json";

/// How much of a sidecar's log is looked through for the reason of a refusal that was seen a moment ago, in lines.
const LOG_LINES: u32 = 200;

/// What an Envoy refused since the first look: its counters say how often since it started, which may have had another cause long ago.
#[derive(Debug, Default)]
pub struct Refusals(Option<BTreeMap<String, u64>>);

impl Refusals {
    /// The counter by which the filter will not come.
    pub fn look(&mut self, stats: &Value, awaited: &Awaited) -> Option<String> {
        let now = counters(stats, awaited);
        let first = self.0.get_or_insert_with(|| now.clone());
        let mut now = now.into_iter();
        let risen = now.find(|(name, count)| first.get(name).unwrap_or(&0) < count);
        risen.map(|(name, _)| name)
    }
}

/// This filter's own.
fn counters(stats: &Value, awaited: &Awaited) -> BTreeMap<String, u64> {
    let ours = format!("{}.{}", awaited.namespace, awaited.plugin);
    let is_meant = |name: &str| {
        let filter = name.strip_prefix("extension_config_discovery.");
        let filter = filter.and_then(|name| name.strip_suffix(".update_rejected"));
        // Of an HTTP filter, there is a word before its name.
        let filter = filter.map(|name| name.strip_prefix("http_filter.").unwrap_or(name));
        filter.map(plugin_of) == Some(&ours)
    };
    let stats = stats["stats"].as_array().into_iter().flatten();
    let counters = stats.filter_map(|stat| {
        let name = stat["name"].as_str().filter(|name| is_meant(name))?;
        Some((name.to_owned(), stat["value"].as_u64()?))
    });
    counters.collect()
}

/// Only the log has the reason: Envoy's dump of clusters and filters does not keep it (1.39).
pub async fn envoys_words(cluster: &Cluster, namespace: &str, pod: &str) -> String {
    let log = cluster
        .pod_log(namespace, pod, "istio-proxy", LOG_LINES)
        .await;
    let log = log.unwrap_or_default();
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains("rejected:") || line.contains("rejected ("));
    line.map_or_else(
        || format!("its words: kubectl -n {namespace} logs {pod} -c istio-proxy | grep rejected"),
        |line| line.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OURS: &str = "extension_config_discovery.http_filter.extensions.istio.io/trafficextension/shop.injector-deployment-orders~istio-translated-wasmplugin.update_rejected";

    fn awaited() -> Awaited {
        Awaited {
            namespace: "shop".to_owned(),
            selector: "app=orders".to_owned(),
            plugin: "injector-deployment-orders".to_owned(),
        }
    }

    fn stats(counters: &[(&str, u64)]) -> Value {
        let counters = counters.iter();
        let counters = counters.map(|(name, value)| json!({"name": name, "value": value}));
        json!({"stats": counters.collect::<Vec<_>>()})
    }

    #[test]
    fn only_this_filters_new_refusal_counts() {
        let mut refusals = Refusals::default();
        let mut look = |counters: &[(&str, u64)]| refusals.look(&stats(counters), &awaited());
        assert_eq!(look(&[(OURS, 1)]), None, "long ago");
        let other = OURS.replace("orders~", "other~");
        for name in ["cluster_manager.cds.update_rejected", &other] {
            assert_eq!(look(&[(OURS, 1), (name, 4)]), None, "{name}");
        }
        let plain = "extension_config_discovery.shop.injector-deployment-orders.update_rejected";
        for (name, count) in [(OURS, 2), (plain, 1)] {
            assert_eq!(look(&[(name, count)]).as_deref(), Some(name));
        }
    }
}

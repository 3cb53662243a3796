//! What a sidecar's Envoy refused, by its own counters: will what is awaited still come?
//!
//! Envoy takes each cluster of an update by itself, and whatever else is in it besides those that it refuses (`cds_api_helper.cc`), and holds no filter up by it. So a refused cluster is
//! mostly somebody else's, an EnvoyFilter's for instance that is wrong for good and counts anew with every push of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::sidecar::{Awaited, Missing, plugin_of};
use crate::cluster::Cluster;

/// What Envoy refused since it started.
pub const REJECTED: &str = "/stats?filter=update_rejected&format=json";

/// Envoy's counter of updates with refused clusters. Istio's default selection of statistics lets it pass, and not those of filters.
const CLUSTERS: &str = "cluster_manager.cds.update_rejected";

/// How much longer a cluster may be missing after one was refused, which may have been another one.
const SETTLE: Duration = Duration::from_secs(1);

/// How much of a sidecar's log is looked through for the reason of a refusal that was seen a moment ago, in lines.
const LOG_LINES: u32 = 200;

/// What an Envoy refused since the first look: its counters say how often since it started, which may have been somebody else's fault long ago.
#[derive(Debug, Default)]
pub struct Refusals {
    first: Option<BTreeMap<String, u64>>,
    /// Since when a cluster is missing although one was refused.
    clusters_since: Option<Instant>,
}

impl Refusals {
    /// The counter by which what is missing will not come.
    pub fn look(&mut self, stats: &Value, awaited: &Awaited, lacks: Missing) -> Option<String> {
        let now = counters(stats, awaited);
        let first = self.first.get_or_insert_with(|| now.clone());
        let risen = now
            .into_iter()
            .filter(|(name, count)| first.get(name).unwrap_or(&0) < count);
        let (clusters, filters): (Vec<_>, Vec<_>) = risen
            .map(|(name, _)| name)
            .partition(|name| name == CLUSTERS);
        match lacks {
            Missing::Entry => filters.into_iter().next(),
            Missing::Cluster => {
                let name = clusters.into_iter().next()?;
                let since = *self.clusters_since.get_or_insert_with(Instant::now);
                (since.elapsed() >= SETTLE).then_some(name)
            }
        }
    }
}

/// That of clusters, and this filter's own.
fn counters(stats: &Value, awaited: &Awaited) -> BTreeMap<String, u64> {
    let ours = format!("{}.{}", awaited.namespace, awaited.plugin);
    let is_meant = |name: &str| {
        let filter = name.strip_prefix("extension_config_discovery.");
        let filter = filter.and_then(|name| name.strip_suffix(".update_rejected"));
        // Of an HTTP filter, there is a word before its name.
        let filter = filter.map(|name| name.strip_prefix("http_filter.").unwrap_or(name));
        name == CLUSTERS || filter.map(plugin_of) == Some(&ours)
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
            name: "bob".to_owned(),
            address: Some("aa".to_owned()),
            cluster: Some("intercept|bob".to_owned()),
        }
    }

    fn stats(counters: &[(&str, u64)]) -> Value {
        let counters = counters.iter();
        let counters = counters.map(|(name, value)| json!({"name": name, "value": value}));
        json!({"stats": counters.collect::<Vec<_>>()})
    }

    #[test]
    fn only_this_filters_refusal_after_the_first_look_keeps_the_entry_out() {
        let mut refusals = Refusals::default();
        let mut look =
            |counters: &[(&str, u64)]| refusals.look(&stats(counters), &awaited(), Missing::Entry);
        assert_eq!(look(&[(CLUSTERS, 3), (OURS, 1)]), None, "long ago");
        let other = OURS.replace("orders~", "other~");
        for (name, why) in [
            (
                "listener_manager.lds.update_rejected",
                "no listener is ours",
            ),
            (CLUSTERS, "clusters hold no filter up"),
            (other.as_str(), "another filter"),
        ] {
            assert_eq!(look(&[(OURS, 1), (name, 4)]), None, "{why}");
        }
        let plain = "extension_config_discovery.shop.injector-deployment-orders.update_rejected";
        for (name, count) in [(OURS, 2), (plain, 1)] {
            assert_eq!(look(&[(name, count)]).as_deref(), Some(name));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_missing_for_a_moment_after_a_refusal_will_not_come() {
        let mut refusals = Refusals::default();
        let mut look =
            |count, lacks| refusals.look(&stats(&[(CLUSTERS, count)]), &awaited(), lacks);
        assert_eq!(look(3, Missing::Cluster), None);
        assert_eq!(look(4, Missing::Entry), None);
        tokio::time::advance(SETTLE * 2).await;
        assert_eq!(
            look(4, Missing::Cluster),
            None,
            "it may have been another one"
        );
        tokio::time::advance(SETTLE).await;
        assert_eq!(look(4, Missing::Cluster).as_deref(), Some(CLUSTERS));
    }
}

//! What the sidecars of a workload really have, asked of each one's Envoy: the gate's routes, the filter and its entries, the clusters; and what it refused.

use std::collections::BTreeSet;

use intercept_kube::Cluster;
use intercept_kube::{envoy_admin, pods};
use intercept_manifest::istio::preparation::{self, workload_of};
use tokio::task::JoinSet;

use super::Check;
use super::proxy::{Expected, Proxy, compare};
use super::snapshot::{Target, is_ours, text};

/// The listener through which everything comes in.
const LISTENER: &str = "/config_dump?resource=dynamic_listeners&name_regex=%5EvirtualInbound%24";

/// Ours, and Istio's own of the relays.
const CLUSTERS: &str = "/config_dump?resource=dynamic_active_clusters&name_regex=%5Eintercept(-app)?%5C%7C.*%7C%5Eoutbound%5C%7C808%5B01%5D%5C%7C%5C%7Cinjector-relay-.*";

/// What Envoy refused since it started. Istio's own selection of statistics lets these pass for listeners and clusters, not for filters.
const REJECTED: &str = "/stats?filter=update_rejected&format=json";

/// Asks all of them, where the caller may.
pub async fn examine(cluster: &Cluster, target: &Target) -> Vec<Check> {
    let Some(expected) = Expected::of(target) else {
        return Vec::new();
    };
    let asked: Vec<String> = target
        .own_pods()
        .filter(|pod| pods::can_be_asked(pod))
        .map(|pod| pods::name_of(pod).to_owned())
        .collect();
    if asked.is_empty() {
        return vec![Check::unknown(
            "proxies",
            "proxies: not verified, no sidecar runs",
        )];
    }
    let mut asking = JoinSet::new();
    for pod in asked {
        let (cluster, namespace) = (cluster.clone(), target.namespace.clone());
        asking.spawn(async move {
            let told =
                tokio::time::timeout(envoy_admin::LOOK_TIMEOUT, ask(&cluster, &namespace, &pod))
                    .await;
            told.unwrap_or_else(|late| Err(late.into()))
                .map_err(|error| (pod, error))
        });
    }
    let mut checks = Vec::new();
    let (mut proxies, mut silent) = (Vec::new(), Vec::new());
    for told in asking.join_all().await {
        match told {
            Ok(proxy) => proxies.push(proxy),
            Err(error) => silent.push(error),
        }
    }
    proxies.sort_by(|one, other| one.pod.cmp(&other.pod));
    if let Some((pod, error)) = silent.first() {
        checks.push(Check::unknown(
            "proxies",
            format!("proxies: {} not verified; {pod}: {error}", silent.len()),
        ));
    }
    checks.extend(compare(&proxies, &expected, &target.namespace));
    checks
}

async fn ask(cluster: &Cluster, namespace: &str, pod: &str) -> anyhow::Result<Proxy> {
    let get = |path| envoy_admin::get(cluster, namespace, pod, path);
    let (filters, listeners, clusters, rejected) = tokio::try_join!(
        get(envoy_admin::FILTERS),
        get(LISTENER),
        get(CLUSTERS),
        get(REJECTED)
    )?;
    Ok(Proxy {
        pod: pod.to_owned(),
        filters,
        listeners,
        clusters,
        rejected,
    })
}

impl Expected {
    /// `None` where the workload is not prepared, or the caller may not see how.
    pub fn of(target: &Target) -> Option<Self> {
        let plugin = target.plugin.as_ref().ok()?.as_ref()?;
        let prepared = target.prepared()?;
        let entries = preparation::read(plugin).ok()??.entries().into_iter();
        let entries = entries.map(|(name, entry)| (name, entry.address));
        let own = (target.found.kind, target.found.name.as_str());
        // A developer may not read them; then the proxies are asked for the relays' clusters only.
        let filters = target.filters.as_deref().unwrap_or_default().iter();
        let ours = filters.filter(|filter| is_ours(filter) && workload_of(filter) == Some(own));
        let patches = ours.filter_map(|filter| filter.pointer("/spec/configPatches")?.as_array());
        let added = patches
            .flatten()
            .filter(|patch| patch["applyTo"] == "CLUSTER")
            .map(|patch| text(patch, "/patch/value/name").to_owned());
        let mut clusters: BTreeSet<String> = added.collect();
        for port in &prepared.workload.ports {
            let relays = 0..prepared.mesh.relay_replicas;
            clusters.extend(relays.map(|relay| prepared.mesh.relay_cluster(relay, port.protocol)));
        }
        Some(Self {
            plugin: format!("{}.{}", target.namespace, prepared.workload.object_name()),
            entries: entries.collect(),
            ports: prepared
                .workload
                .ports
                .iter()
                .map(|port| port.number)
                .collect(),
            clusters,
        })
    }
}

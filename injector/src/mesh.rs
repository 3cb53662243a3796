//! The mesh backend: the intercepts of prepared workloads, as a developer sees and changes them through the API server. What the objects look like is `manifest::istio`'s
//! business, how the API server is spoken to `cluster`'s, and what an intercept may say `intercept-core`'s.

mod clock;
mod environment;
mod events;
mod failure;
pub mod live;
pub mod patch;
pub mod plugin;
pub mod pods;
mod refusals;
pub mod relay;
pub mod rights;
pub mod sidecar;
mod store;
mod target;
mod under_way;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::ready;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::Value;

use self::clock::Clock;
use self::events::Happened;
pub use self::live::USUAL_MESH;
use self::plugin::Plugin;
use self::relay::{Relays, ask_relays};
use self::sidecar::Awaited;
use self::store::Store;
pub(crate) use self::store::list_ours;
pub use self::target::Target;
use crate::cluster::access::Right;
use crate::cluster::{Cluster, ClusterError, kind};
use crate::hint::Result;
use crate::manifest::istio::{Kind, names, prepared};
use crate::model::{Found, Live, Replicas};
use crate::tunnel::presence::{Presence, Traffic};
use crate::tunnel::relay_end::RelayEnd;

/// How many Events are written at the same time.
const TELLING: usize = 16;

/// The prepared workloads of one namespace, or of all.
#[derive(Debug)]
pub struct Mesh {
    cluster: Cluster,
    is_everywhere: bool,
    clock: Clock,
}

impl Mesh {
    /// Those of the namespace that the flags choose. Asks nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            is_everywhere: false,
            clock: Clock::default(),
        }
    }

    /// Those of all namespaces.
    pub fn everywhere(&mut self) {
        self.is_everywhere = true;
    }

    /// The API server.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The context and namespace, by which a developer knows them.
    pub fn identity(&self) -> String {
        self.identity_in(self.cluster.namespace())
    }

    /// As [`Self::identity`], of this namespace where one is given, and no other API server's: two kubeconfigs may give their contexts one name.
    pub fn detached_in(&self, namespace: Option<&str>) -> String {
        let namespace = namespace.unwrap_or(self.cluster.namespace());
        let identity = self.identity_in(namespace);
        format!("{identity}:{}", self.cluster.fingerprint())
    }

    fn identity_in(&self, namespace: &str) -> String {
        format!("cluster:{}:{namespace}", self.cluster.context())
    }

    /// Whom the API server takes the caller for.
    pub async fn owner(&self) -> Result<String> {
        Ok(self.cluster.whoami().await?.name)
    }

    /// Seconds since the epoch, by the API server.
    pub async fn now(&self) -> Result<u64> {
        Ok(self.clock.now(&self.cluster).await?)
    }

    /// All intercepts. Of a plugin that this build cannot read, none.
    pub async fn all(&self) -> Result<Vec<Found>> {
        let plugins = self.plugins().await?;
        let found = plugins.into_iter().flat_map(|(kind, workload, plugin)| {
            let Plugin {
                namespace,
                document,
                ..
            } = plugin;
            let intercepts = document.intercepts.into_iter();
            intercepts.map(move |(name, intercept)| Found {
                limits: document.limits.clone(),
                namespace: Some(namespace.clone()),
                kind: Some(kind),
                workload: workload.clone(),
                name,
                intercept,
            })
        });
        Ok(found.collect())
    }

    /// Clears away what nobody renewed for a long time. What cannot be cleared away is left to somebody who may.
    pub async fn sweep(&self) -> Result<()> {
        let now = self.now().await?;
        for (kind, workload, plugin) in self.plugins().await? {
            if plugin.left_over(now, crate::envoy::SWEEP_AFTER).is_empty() {
                continue;
            }
            let store = self.store(&plugin.namespace, kind, &workload);
            let _ = store::sweep(&store, (kind, &workload), now).await;
        }
        self.sweep_clusters(now).await
    }

    /// Clusters whose entry is gone: whoever removed it by hand left them behind.
    async fn sweep_clusters(&self, now: u64) -> Result<()> {
        let filters = list_ours(&self.cluster, &kind::ENVOY_FILTER, self.scope()).await?;
        for filter in &filters {
            let metadata = &filter["metadata"];
            let over = prepared::lease_of(filter)
                .is_some_and(|expires| expires.saturating_add(crate::envoy::SWEEP_AFTER) < now);
            let (Some(name), Some(namespace), Some((kind, workload)), true) = (
                metadata["labels"][names::INTERCEPT].as_str(),
                metadata["namespace"].as_str(),
                prepared::workload_of(filter),
                over,
            ) else {
                continue;
            };
            let store = self.store(namespace, kind, workload);
            let _ = store.clear_cluster(name).await;
        }
        Ok(())
    }

    /// Is the developer machine of each connected? In the same order.
    pub async fn presences(&self, all: &[Found]) -> Vec<Presence> {
        let addresses: Vec<&str> = all
            .iter()
            .map(|found| found.intercept.address.as_str())
            .collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        let relays = self.relays().await.unwrap_or_default();
        ask_relays(relays.iter().flat_map(Relays::ends), &addresses).await
    }

    /// What is under way through the tunnel of each, in the same order. Its own cluster says at which relay that ends; where it has none, nothing hangs on it.
    pub async fn traffic(&self, all: &[&Found]) -> Vec<Traffic> {
        let Ok(filters) = list_ours(&self.cluster, &kind::ENVOY_FILTER, self.scope()).await else {
            return vec![Traffic::Unknown; all.len()];
        };
        let mut asking = tokio::task::JoinSet::new();
        for ((namespace, replica), addresses) in by_relay(&filters, all) {
            let relays = Relays::new(&self.cluster, &namespace, replica.saturating_add(1));
            asking.spawn(async move { relays.traffic(replica, addresses).await });
        }
        let mut known = BTreeMap::new();
        while let Some(told) = asking.join_next().await {
            known.extend(told.unwrap_or_default());
        }
        let addresses = all.iter().map(|found| &found.intercept.address);
        addresses
            .map(|address| known.get(address).copied().unwrap_or(Traffic::None))
            .collect()
    }

    /// Waits, for a while, until no request is under way through these tunnels. `on_wait` is called where some are.
    pub async fn wait_idle(&self, addresses: &[String], on_wait: impl FnOnce()) {
        let relays = self.relays().await.unwrap_or_default();
        let relays: Vec<RelayEnd> = relays.iter().flat_map(Relays::ends).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        under_way::wait_idle(&relays, &addresses, on_wait).await;
    }

    /// Removes an intercept's entry if it still is the one that was found.
    pub async fn remove(&self, found: &Found) -> Result<bool> {
        let (Some(namespace), Some(kind)) = (&found.namespace, found.kind) else {
            return Ok(false);
        };
        let store = self.store(namespace, kind, &found.workload);
        let removed = store.remove(&found.name, &found.intercept.address).await?;
        if let Some(intercept) = &removed {
            let workload = (kind, found.workload.as_str());
            store
                .tell(workload, Happened::Removed, &found.name, intercept)
                .await;
        }
        Ok(removed.is_some())
    }

    /// Removes the cluster of an intercept whose entry is gone.
    pub async fn clear(&self, found: &Found) -> Result<()> {
        let (Some(namespace), Some(kind)) = (&found.namespace, found.kind) else {
            return Ok(());
        };
        let store = self.store(namespace, kind, &found.workload);
        store.clear_cluster(&found.name).await
    }

    /// Waits until no replica has an intercept of this name any more, where the caller may look.
    pub async fn wait_gone(&self, found: &Found, timeout: Duration) -> Live {
        match self.awaited(found).await {
            Ok(Some(awaited)) => live::wait(&self.cluster, awaited, timeout, &|_| {}).await,
            Ok(None) => Live::NotVerified {
                why: "you may not forward ports to the workload's pods".to_owned(),
            },
            Err(error) => Live::NotVerified {
                why: error.to_string(),
            },
        }
    }

    /// How many replicas have each; `None` where the caller may not look. In the same order.
    pub async fn replicas(&self, all: &[Found]) -> Vec<Option<Replicas>> {
        let mut documents: BTreeMap<(Option<&str>, &str), Option<Vec<Value>>> = BTreeMap::new();
        let mut replicas = Vec::new();
        for found in all {
            let workload = (found.namespace.as_deref(), found.workload.as_str());
            if let Entry::Vacant(place) = documents.entry(workload) {
                place.insert(self.documents(found).await.unwrap_or_default());
            }
            let documents = documents.get(&workload).and_then(Option::as_ref);
            let has_it = |document: &&Value| {
                sidecar::address(document, &found.name) == Some(&found.intercept.address)
            };
            replicas.push(documents.map(|documents| Replicas {
                live: documents.iter().filter(has_it).count(),
                all: documents.len(),
            }));
        }
        replicas
    }

    async fn documents(&self, found: &Found) -> Result<Option<Vec<Value>>, ClusterError> {
        let Some(awaited) = self.awaited(found).await? else {
            return Ok(None);
        };
        let Awaited {
            namespace,
            selector,
            plugin,
            ..
        } = &awaited;
        sidecar::documents(&self.cluster, namespace, selector, plugin)
            .await
            .map(Some)
    }

    async fn awaited(&self, found: &Found) -> Result<Option<Awaited>, ClusterError> {
        let (Some(namespace), Some(kind)) = (found.namespace.as_deref(), found.kind) else {
            return Ok(None);
        };
        let right = Right::new("get", &kind::POD, Some(namespace)).of("portforward");
        if !self.cluster.can(&right).await? {
            return Ok(None);
        }
        let store = self.store(namespace, kind, &found.workload);
        let plugin = self
            .cluster
            .get(&kind::WASM_PLUGIN, Some(namespace), store.plugin_name())
            .await?;
        let labels = plugin.as_ref().and_then(|plugin| {
            let labels = &plugin["spec"]["selector"]["matchLabels"];
            serde_json::from_value::<BTreeMap<String, String>>(labels.clone()).ok()
        });
        Ok(labels.map(|labels| Awaited {
            namespace: namespace.to_owned(),
            selector: pods::selector(&labels),
            plugin: store.plugin_name().to_owned(),
            name: found.name.clone(),
            address: None,
            cluster: None,
        }))
    }

    fn scope(&self) -> Option<&str> {
        (!self.is_everywhere).then(|| self.cluster.namespace())
    }

    async fn plugins(&self) -> Result<Vec<(Kind, String, Plugin)>, ClusterError> {
        let objects = list_ours(&self.cluster, &kind::WASM_PLUGIN, self.scope()).await?;
        let plugins = objects.iter().filter_map(|object| {
            let (kind, workload) = prepared::workload_of(object)?;
            Some((kind, workload.to_owned(), Plugin::read(object).ok()?))
        });
        Ok(plugins.collect())
    }

    /// The relays that the gates of these workloads lead to.
    async fn relays(&self) -> Result<Vec<Relays>, ClusterError> {
        let gates = list_ours(&self.cluster, &kind::ENVOY_FILTER, self.scope()).await?;
        let mut replicas = BTreeMap::new();
        for mesh in gates.iter().filter_map(mesh_of) {
            let most = replicas.entry(mesh.0).or_insert(0);
            *most = mesh.1.max(*most);
        }
        Ok(replicas
            .into_iter()
            .map(|(namespace, replicas)| Relays::new(&self.cluster, &namespace, replicas))
            .collect())
    }

    fn store(&self, namespace: &str, kind: Kind, workload: &str) -> Store {
        let plugin = names::of_workload(kind, workload);
        Store::new(&self.cluster, namespace, &plugin, Clock::default())
    }
}

/// Writes an Event for each intercept of a WasmPlugin, as it was, that was live then and is removed now. `now` in seconds since the epoch.
pub async fn tell_removed(cluster: &Cluster, plugin: &Value, now: u64) {
    let (Some(workload), Ok(plugin)) = (prepared::workload_of(plugin), Plugin::read(plugin)) else {
        return;
    };
    let store = Store::new(cluster, &plugin.namespace, &plugin.name, Clock::default());
    let intercepts = plugin.document.intercepts.iter();
    let live = intercepts.filter(|(_, intercept)| intercept.expires > now);
    let telling =
        live.map(|(name, intercept)| store.tell(workload, Happened::Removed, name, intercept));
    // There may be a thousand.
    stream::iter(telling)
        .buffer_unordered(TELLING)
        .for_each(|()| ready(()))
        .await;
}

/// The addresses of those that have clusters of their own, by the relay, its namespace and number, to which these lead.
fn by_relay(filters: &[Value], all: &[&Found]) -> BTreeMap<(String, u16), Vec<String>> {
    let key = |filter: &Value| {
        let metadata = &filter["metadata"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some((
            text(&metadata["namespace"])?,
            text(&metadata["labels"][names::INTERCEPT])?,
        ))
    };
    let relays = filters
        .iter()
        .filter_map(|filter| Some((key(filter)?, prepared::relay_of(filter)?)));
    let relays: BTreeMap<_, _> = relays.collect();
    let mut addresses: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for found in all {
        let key = (
            found.namespace.clone().unwrap_or_default(),
            found.name.clone(),
        );
        if let Some(relay) = relays.get(&key) {
            let of_relay = addresses.entry(relay.clone()).or_default();
            of_relay.push(found.intercept.address.clone());
        }
    }
    addresses
}

fn mesh_of(gate: &Value) -> Option<(String, u16)> {
    let mesh = prepared::read(gate).ok()?.mesh;
    Some((mesh.namespace, mesh.relay_replicas))
}

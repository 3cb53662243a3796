//! The mesh backend: the intercepts of prepared workloads, as a developer sees and changes them through the API server. What the objects look like is `manifest::istio`'s
//! business, how the API server is spoken to `cluster`'s, and what an intercept may say `intercept-core`'s.

mod clock;
mod environment;
mod failure;
pub mod intercepts;
pub mod live;
pub mod pods;
mod refusals;
pub mod relay;
pub mod rights;
pub mod sidecar;
mod target;
mod under_way;

use std::collections::BTreeMap;
use std::time::Duration;

use intercept_core::Limits;
use serde_json::Value;

use self::clock::Clock;
use self::intercepts::Intercepts;
use self::relay::{Relays, ask_relays};
pub use self::target::{Target, USUAL_MESH};
use crate::cluster::{Cluster, ClusterError, Kind as ObjectKind, kind};
use crate::hint::Result;
use crate::manifest::istio::{names, preparation};
use crate::model::{Found, Live};
use crate::tunnel::presence::Presence;
use crate::tunnel::relay_end::RelayEnd;

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

    /// The relay at which a tunnel of the caller's ends, and where connections into the cluster are opened.
    ///
    /// # Errors
    /// Always: nothing is installed for that yet.
    pub async fn ways_in(&self) -> Result<(RelayEnd, RelayEnd)> {
        Err(crate::hint::Failure::failed(
            "outbound connections: not open in this cluster",
            "on a mesh they cannot be opened yet; without a cluster: injector sandbox",
        ))
    }

    /// All intercepts.
    pub async fn all(&self) -> Result<Vec<Found>> {
        let all = Intercepts::list(&self.cluster, self.scope()).await?;
        let found = all.into_iter().map(|one| Found {
            namespace: one.metadata.namespace.clone(),
            kind: Some(one.spec.workload.kind),
            workload: one.spec.workload.name.clone(),
            name: one.name().to_owned(),
            intercept: one.entry(one.expires()),
            limits: Limits::default(),
            refusal: one.refusal().map(str::to_owned),
            replicas: one
                .status
                .and_then(|status| status.replicas)
                .map(Into::into),
        });
        Ok(found.collect())
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

    /// Waits, for a while, until no request is under way through these tunnels. `on_wait` is called where some are.
    pub async fn wait_idle(&self, addresses: &[String], on_wait: impl FnOnce()) {
        let relays = self.relays().await.unwrap_or_default();
        let relays: Vec<RelayEnd> = relays.iter().flat_map(Relays::ends).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        under_way::wait_idle(&relays, &addresses, on_wait).await;
    }

    /// Ends the lease of an intercept if it still is the one that was found; the controller takes it from the proxies.
    pub async fn remove(&self, found: &Found) -> Result<bool> {
        let (intercepts, address) = (self.intercepts(found), &found.intercept.address);
        let removed = intercepts.give_back(&found.name, address).await;
        Ok(removed.map_err(failure::refused)?.is_some())
    }

    /// Deletes an intercept where the controller did not.
    pub async fn clear(&self, found: &Found) -> Result<()> {
        let (intercepts, address) = (self.intercepts(found), &found.intercept.address);
        let deleted = intercepts.delete(&found.name, address).await;
        deleted.map(drop).map_err(failure::refused)
    }

    /// Waits until no replica has an intercept any more; where nobody sees that, for as long as it usually takes.
    pub async fn wait_gone(&self, found: &Found, within: Duration) -> Live {
        let (name, address) = (&found.name, &found.intercept.address);
        target::wait_gone(&self.intercepts(found), name, address, within).await
    }

    fn intercepts(&self, found: &Found) -> Intercepts {
        let namespace = found.namespace.as_deref();
        Intercepts::new(&self.cluster, namespace.unwrap_or(self.cluster.namespace()))
    }

    fn scope(&self) -> Option<&str> {
        (!self.is_everywhere).then(|| self.cluster.namespace())
    }

    /// The relays of all workloads that are prepared here.
    async fn relays(&self) -> Result<Vec<Relays>, ClusterError> {
        let plugins = list_ours(&self.cluster, &kind::WASM_PLUGIN, self.scope()).await?;
        let mut replicas = BTreeMap::new();
        for plugin in &plugins {
            let Ok(Some(plugin)) = preparation::read(plugin) else {
                continue;
            };
            let mesh = plugin.preparation.mesh;
            let most = replicas.entry(mesh.namespace).or_insert(0);
            *most = mesh.relay_replicas.max(*most);
        }
        let relays = replicas.into_iter();
        Ok(relays
            .map(|(namespace, replicas)| Relays::new(&self.cluster, &namespace, replicas))
            .collect())
    }
}

/// All objects of a kind that this program made.
pub(crate) async fn list_ours(
    cluster: &Cluster,
    kind: &ObjectKind,
    namespace: Option<&str>,
) -> Result<Vec<Value>, ClusterError> {
    let ours = format!("{}={}", names::MANAGED_BY, names::MANAGER);
    cluster.list(kind, namespace, Some(&ours)).await
}

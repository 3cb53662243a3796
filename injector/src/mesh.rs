//! The mesh backend: the intercepts of prepared workloads, as a developer sees and changes them through the API server. What the objects look like is `intercept-manifest`'s
//! business, how the API server is spoken to `cluster`'s, and what an intercept may say `intercept-core`'s.

mod clock;
mod environment;
mod failure;
mod outbound;
pub mod relay;
mod target;
mod under_way;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use intercept_core::Limits;
use intercept_kube::intercepts::Intercepts;
use intercept_kube::{Cluster, ClusterError, Kind as ObjectKind, kind};
use intercept_manifest::istio::{names, preparation};
use intercept_tunnel::presence::Presence;
use intercept_tunnel::relay_end::RelayEnd;
use serde_json::Value;

use self::clock::Clock;
use self::outbound::Outbound;
use self::relay::{Relays, ask_relays};
pub use self::target::{MeshTarget, USUAL_MESH};
use crate::error::Result;
use crate::model::{Backend, Found, Live, Target};
use crate::shell::context_flags;

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

    fn identity_in(&self, namespace: &str) -> String {
        format!("cluster:{}:{namespace}", self.cluster.context())
    }

    fn intercepts(&self, found: &Found) -> Intercepts {
        let namespace = found.namespace.as_deref();
        Intercepts::new(&self.cluster, namespace.unwrap_or(self.cluster.namespace()))
    }

    fn scope(&self) -> Option<&str> {
        (!self.is_everywhere).then(|| self.cluster.namespace())
    }
}

#[async_trait(?Send)]
impl Backend for Mesh {
    fn everywhere(&mut self) -> Result<()> {
        self.is_everywhere = true;
        Ok(())
    }

    /// By the context and the namespace.
    fn identity(&self) -> String {
        self.identity_in(self.cluster.namespace())
    }

    /// By the API server as well: two kubeconfigs may give their contexts one name.
    fn detached_in(&self, namespace: Option<&str>) -> String {
        let namespace = namespace.unwrap_or(self.cluster.namespace());
        let identity = self.identity_in(namespace);
        format!("{identity}:{}", self.cluster.fingerprint())
    }

    fn namespace_flags(&self, namespace: &str) -> Option<String> {
        Some(context_flags(&self.cluster.flags(Some(namespace))))
    }

    async fn owner(&self) -> Result<String> {
        Ok(self.cluster.whoami().await?.name)
    }

    async fn target(&self, target: &str) -> Result<Box<dyn Target + '_>> {
        Ok(Box::new(MeshTarget::open(&self.cluster, target).await?))
    }

    async fn ways_in(&self) -> Result<(RelayEnd, RelayEnd)> {
        let namespace = self.cluster.namespace();
        let outbound = Outbound::find(&self.cluster, namespace, None).await?;
        let owner = self.owner().await?;
        Ok((outbound.relay(&owner).await?, outbound.end()))
    }

    async fn all(&self) -> Result<Vec<Found>> {
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

    async fn presences(&self, all: &[Found]) -> Vec<Presence> {
        let addresses: Vec<&str> = all
            .iter()
            .map(|found| found.intercept.address.as_str())
            .collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        let relays = relays(&self.cluster, self.scope())
            .await
            .unwrap_or_default();
        ask_relays(relays.iter().flat_map(Relays::ends), &addresses).await
    }

    /// Ends the lease; the controller takes it from the proxies.
    async fn remove(&self, found: &Found) -> Result<bool> {
        let (intercepts, address) = (self.intercepts(found), &found.intercept.address);
        let removed = intercepts.give_back(&found.name, address).await;
        Ok(removed.map_err(failure::refused)?.is_some())
    }

    async fn wait_gone(&self, found: &Found, timeout: Duration) -> Live {
        let (name, address) = (&found.name, &found.intercept.address);
        target::wait_gone(&self.intercepts(found), name, address, timeout).await
    }

    /// Deletes Intercepts where the controller did not.
    async fn clear(&self, all: &[&Found]) -> Result<()> {
        let mut outcome = Ok(());
        for found in all {
            let (intercepts, address) = (self.intercepts(found), &found.intercept.address);
            let deleted = intercepts.delete(&found.name, address).await;
            outcome = outcome.and(deleted.map(drop).map_err(failure::refused));
        }
        outcome
    }

    async fn now(&self) -> Result<u64> {
        Ok(self.clock.now(&self.cluster).await?)
    }
}

/// Waits, for a while, until no request is under way through these tunnels at any relay of the cluster. `on_wait` is called where some are.
pub async fn wait_idle(cluster: &Cluster, addresses: &[&str], on_wait: impl FnOnce()) {
    let relays = relays(cluster, None).await.unwrap_or_default();
    let relays: Vec<RelayEnd> = relays.iter().flat_map(Relays::ends).collect();
    under_way::wait_idle(&relays, addresses, on_wait).await;
}

/// The relays of the workloads that are prepared in this namespace, or in all.
async fn relays(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Relays>, ClusterError> {
    let plugins = list_ours(cluster, &kind::WASM_PLUGIN, namespace).await?;
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
        .map(|(namespace, replicas)| Relays::new(cluster, &namespace, replicas))
        .collect())
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

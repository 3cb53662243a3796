//! The conversations with the API server by which the entries of one WasmPlugin, and the clusters beside them, come and go. Whoever was faster wins, and whoever was slower reads again:
//! nothing is written over what was not read, and nothing that somebody removed comes back.

mod clusters;
mod told;

use intercept_core::{Document, Intercept};
use serde_json::{Value, json};

use super::clock::Clock;
use super::events::Happened;
use super::plugin::Plugin;
use super::{failure, patch};
use crate::cluster::{Apply, Cluster, ClusterError, Kind as ObjectKind, kind};
use crate::envoy::SWEEP_AFTER;
use crate::hint::{Failure, Result};
use crate::manifest::istio::intercept::is_own_cluster;
use crate::manifest::istio::prepared;
use crate::manifest::istio::{Kind, field_manager, names};
use crate::model::NotRenewed;
use crate::shell::quote;

/// How often a change is tried against newer versions of an object before it fails: each time somebody else's change went through.
const ATTEMPTS: usize = 30;

/// A workload's WasmPlugin and what belongs to its entries.
#[derive(Debug)]
pub struct Store {
    cluster: Cluster,
    namespace: String,
    plugin: String,
    clock: Clock,
}

impl Store {
    /// Asks nothing yet.
    pub fn new(cluster: &Cluster, namespace: &str, plugin: &str, clock: Clock) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            plugin: plugin.to_owned(),
            clock,
        }
    }

    /// The API server.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where the workload is.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The WasmPlugin's name.
    pub fn plugin_name(&self) -> &str {
        &self.plugin
    }

    /// Seconds since the epoch, by the API server.
    pub async fn now(&self) -> Result<u64, ClusterError> {
        self.clock.now(&self.cluster).await
    }

    /// The plugin; `None` where it is gone.
    pub async fn read(&self) -> Result<Option<Plugin>> {
        let object = self
            .cluster
            .get(&kind::WASM_PLUGIN, Some(&self.namespace), &self.plugin)
            .await?;
        let plugin = object.as_ref().map(Plugin::read);
        plugin.transpose().map_err(failure::of_plugin)
    }

    /// The plugin, which must be there.
    pub async fn plugin(&self) -> Result<Plugin> {
        self.read().await?.ok_or_else(|| {
            Failure::failed(
                format!(
                    "WasmPlugin {}/{}: not found; the workload is no longer prepared for intercepts",
                    self.namespace, self.plugin
                ),
                "injector install --help",
            )
        })
    }

    /// An intercept's name is its cluster's and its object's, so it can be used once in a namespace.
    pub async fn check_name(&self, name: &str) -> Result<()> {
        for object in list_ours(&self.cluster, &kind::WASM_PLUGIN, Some(&self.namespace)).await? {
            let Ok(plugin) = Plugin::read(&object) else {
                continue;
            };
            if plugin.name != self.plugin && plugin.entry(name).is_some() {
                let workload = prepared::workload_of(&object)
                    .map_or(plugin.name.clone(), |(_, name)| name.to_owned());
                return Err(Failure::failed(
                    format!("{name}: an intercept of {workload} has this name"),
                    format!(
                        "choose another one with --name, or end it: injector leave{} {}",
                        self.cluster.place_flags(Some(&self.namespace)),
                        quote(name)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Applies the entry for exactly the version of the plugin that `check` saw, as often as somebody else was faster.
    pub async fn add_entry(
        &self,
        name: &str,
        intercept: &Intercept,
        object: &Value,
        check: &(dyn Fn(&Document) -> Result<()> + Sync),
    ) -> Result<()> {
        let mut object = object.clone();
        for _ in 0..ATTEMPTS {
            let plugin = self.plugin().await?;
            check(&plugin.document)?;
            object["metadata"]["resourceVersion"] = json!(plugin.resource_version);
            match self
                .cluster
                .apply(&object, &field_manager(name), FORCED)
                .await
            {
                Ok(applied) => return self.check_written(name, intercept, &applied).await,
                Err(error) if error.is_conflict() && error.code() == Some(409) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Err(self.busy())
    }

    /// Fields that somebody wrote by hand into an entry of this name would survive an apply, and the entry would mean something else than was checked.
    async fn check_written(
        &self,
        name: &str,
        intercept: &Intercept,
        applied: &Value,
    ) -> Result<()> {
        let entry = applied
            .pointer(&patch::pointer(name))
            .filter(|entry| !patch::is_written(Some(entry), intercept));
        if entry.is_none() {
            return Ok(());
        }
        self.remove(name, &intercept.address).await?;
        self.clear_cluster(name).await?;
        Err(Failure::failed(
            format!("{name}: the entry has fields that somebody else wrote; it is removed"),
            "start it again",
        ))
    }

    /// Moves the end of a lease, in seconds since the epoch, if the entry still is that tunnel's.
    pub async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        let patch = patch::renew(name, address, expires);
        let renewed = self
            .patch(&kind::WASM_PLUGIN, &self.plugin, &patch, name)
            .await;
        let entry = match renewed {
            Ok(Some(object)) => object.pointer(&patch::pointer(name)).cloned(),
            Ok(None) => return Err(NotRenewed::Removed),
            Err(error) if error.is_conflict() => return Err(self.why(name, address, error).await),
            Err(error) => return Err(NotRenewed::Failed(error.to_string())),
        };
        let entry = entry.unwrap_or_default();
        if is_own_cluster(name, &entry) {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let patch = patch::renew_cluster(text("cluster"), text("owner"), expires);
            let filter = names::of_intercept(name);
            // Only whoever clears away leftovers reads it; the next renewal tries again. Whether it is there at all is looked at in between, see `Target::mend`.
            let _ = self.patch(&kind::ENVOY_FILTER, &filter, &patch, name).await;
        }
        Ok(())
    }

    async fn why(&self, name: &str, address: &str, error: ClusterError) -> NotRenewed {
        let plugin = match self.read().await {
            Ok(Some(plugin)) => plugin,
            Ok(None) => return NotRenewed::Removed,
            Err(failure) => return NotRenewed::Failed(failure.to_string()),
        };
        match plugin.entry(name) {
            None => NotRenewed::Removed,
            Some(entry) if entry["address"] == address => NotRenewed::Failed(error.to_string()),
            Some(entry) => {
                let owner = entry["owner"].as_str().unwrap_or("somebody");
                NotRenewed::Taken(owner.to_owned())
            }
        }
    }

    /// Removes an entry if it still is that tunnel's. Its cluster stays until [`Store::clear_cluster`]: an Envoy that loses a cluster answers 503 to a request
    /// that was already decided and is between its two attempts.
    pub async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        self.remove_entry(name, &|entry| entry["address"] == address)
            .await
    }

    async fn remove_entry(
        &self,
        name: &str,
        is_meant: &(dyn Fn(&Value) -> bool + Sync),
    ) -> Result<Option<Intercept>> {
        for _ in 0..ATTEMPTS {
            let Some(plugin) = self.read().await? else {
                return Ok(None);
            };
            let Some(entry) = plugin.entry(name).filter(|entry| is_meant(entry)) else {
                return Ok(None);
            };
            let patch = patch::remove(name, entry, &plugin.entries);
            let patched = self
                .patch(&kind::WASM_PLUGIN, &self.plugin, &patch, name)
                .await;
            match patched {
                Ok(_) => return Ok(plugin.document.intercepts.get(name).cloned()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Err(self.busy())
    }

    async fn patch(
        &self,
        kind: &ObjectKind,
        object: &str,
        patch: &Value,
        intercept: &str,
    ) -> Result<Option<Value>, ClusterError> {
        self.cluster
            .patch_json(
                kind,
                Some(&self.namespace),
                object,
                patch,
                &field_manager(intercept),
            )
            .await
    }

    fn busy(&self) -> Failure {
        Failure::failed(
            format!(
                "WasmPlugin {}/{}: others change it faster than this command can",
                self.namespace, self.plugin
            ),
            "try again",
        )
        .passing(true)
    }
}

/// Fields of an intercept that was renewed belong to another entry of `managedFields`. Whose they are was checked before.
const FORCED: Apply = Apply {
    force: true,
    dry_run: false,
};

/// Clears away what nobody renewed for [`SWEEP_AFTER`] seconds, and returns the names. What this caller may not clear away keeps nothing that they may; an error only where it is all.
pub async fn sweep(store: &Store, workload: (Kind, &str), now: u64) -> Result<Vec<String>> {
    let Some(plugin) = store.read().await? else {
        return Ok(Vec::new());
    };
    let (mut swept, mut first_failure) = (Vec::new(), None);
    for name in plugin.left_over(now, SWEEP_AFTER) {
        let Some(entry) = plugin.entry(&name) else {
            continue;
        };
        match sweep_one(store, workload, &name, entry).await {
            Ok(true) => swept.push(name),
            Ok(false) => {}
            Err(failure) => drop(first_failure.get_or_insert(failure)),
        }
    }
    match first_failure {
        Some(failure) if swept.is_empty() => Err(failure),
        _ => Ok(swept),
    }
}

/// `false`: it is another one by now, or gone.
async fn sweep_one(
    store: &Store,
    workload: (Kind, &str),
    name: &str,
    entry: &Value,
) -> Result<bool> {
    let is_meant = |there: &Value| there == entry;
    let Some(intercept) = store.remove_entry(name, &is_meant).await? else {
        return Ok(false);
    };
    store.clear_cluster(name).await?;
    store
        .tell(workload, Happened::LeftOver, name, &intercept)
        .await;
    Ok(true)
}

/// All objects of a kind that this program made.
pub async fn list_ours(
    cluster: &Cluster,
    kind: &ObjectKind,
    namespace: Option<&str>,
) -> Result<Vec<Value>, ClusterError> {
    let ours = format!("{}={}", names::MANAGED_BY, names::MANAGER);
    cluster.list(kind, namespace, Some(&ours)).await
}

/// Where the API server keeps this kind of workload.
pub fn object_kind(kind: Kind) -> &'static ObjectKind {
    match kind {
        Kind::Deployment => &kind::DEPLOYMENT,
        Kind::StatefulSet => &kind::STATEFUL_SET,
        Kind::DaemonSet => &kind::DAEMON_SET,
    }
}

/// A write that the API server did not take; an admission policy's reason stands in its own words.
fn refused(error: ClusterError) -> Failure {
    match error.is_forbidden() {
        true => Failure::failed(
            error,
            "kubectl auth whoami; what an operator allows is said above",
        ),
        false => error.into(),
    }
}

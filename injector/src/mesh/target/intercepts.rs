//! The intercepts of a target: written, mended, renewed and removed. Every change holds only for what was read before it.

use std::time::Duration;

use intercept_core::{Document, Intercept};
use serde_json::Value;

use super::Target;
use crate::cluster::kind;
use crate::hint::{Failure, Result};
use crate::manifest::istio::intercept::own_cluster;
use crate::manifest::istio::prepared::{self, Prepared};
use crate::manifest::istio::{NewIntercept, intercept_objects};
use crate::mesh::events::{self, Happened};
use crate::mesh::{store, under_way};
use crate::model::NotRenewed;

/// How long to wait for the replicas to let go of an entry that makes room for another one.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

impl Target {
    /// The objects that an intercept consists of, in the order in which they are applied.
    pub fn objects(&self, name: &str, intercept: &Intercept, replica: u16) -> Result<Vec<Value>> {
        let new = NewIntercept {
            name,
            entry: intercept,
            relay: replica,
        };
        let Prepared { mesh, workload } = &self.prepared;
        let objects = intercept_objects(mesh, workload, new)
            .map_err(|error| Failure::failed(error, "injector doctor"))?;
        Ok(objects
            .iter()
            .map(|object| object.value().clone())
            .collect())
    }

    /// Adds an intercept if `check` allows it for what is there at that moment: the entry is written for exactly the version of the object that was checked, and anew for a newer one.
    pub async fn add(
        &self,
        name: &str,
        intercept: &Intercept,
        replica: u16,
        check: &(dyn Fn(&Document) -> Result<()> + Sync),
    ) -> Result<()> {
        let objects = self.objects(name, intercept, replica)?;
        let (entry, clusters) = match objects.split_last() {
            Some(parts) => parts,
            None => return Ok(()),
        };
        self.store.check_name(name).await?;
        let (document, filter) = tokio::join!(self.document(), self.store.cluster_filter(name));
        let document = document?;
        check(&document)?;
        if !clusters.is_empty() {
            self.make_room(name, intercept, &document).await?;
        }
        for cluster in clusters {
            self.store.apply_cluster(name, cluster).await?;
        }
        let added = self.store.add_entry(name, intercept, entry, check).await;
        if added.is_err() {
            let before = filter.ok().flatten();
            // Whoever it is for mends it as well.
            let _ = self
                .take_back(name, intercept, before.as_ref(), replica)
                .await;
        }
        added?;
        let hold = async {
            match clusters {
                [cluster] => self.store.hold_cluster(name, intercept, cluster).await,
                _ => Ok(()),
            }
        };
        let tell = self
            .store
            .tell(self.regarding(), Happened::Created, name, intercept);
        // Beside each other, so that nobody waits longer.
        let (held, ()) = tokio::join!(hold, tell);
        held
    }

    /// Removes the entry of the name that is for another port, and waits until no replica has it and what is under way has ended: its cluster bears that port, and goes with the object that it shares with the new one.
    async fn make_room(&self, name: &str, new: &Intercept, document: &Document) -> Result<()> {
        let before = document.intercepts.get(name);
        if let Some(before) = before.filter(|before| has_other_cluster(name, before, new)) {
            // No Event: the name is taken, and what took it is told.
            self.store.remove(name, &before.address).await?;
            self.wait_gone(name, GONE_TIMEOUT).await;
            // Its command sees that, and ends what is under way.
            let relays = self.rights.relays.iter();
            let relays: Vec<_> = relays.map(|relay| self.relays.end(*relay)).collect();
            under_way::wait_idle(&relays, &[&before.address], || ()).await;
        }
        Ok(())
    }

    /// After a refusal, what was written first must not stay behind alone, and if it was written over the cluster of an entry that came meanwhile, that one comes back.
    async fn take_back(
        &self,
        name: &str,
        refused: &Intercept,
        before: Option<&Value>,
        replica: u16,
    ) -> Result<()> {
        self.store.clear_cluster(name).await?;
        match self.find(name).await? {
            Some(there) if has_other_cluster(name, &there, refused) => {
                // A name mostly keeps its relay.
                let relay = before.and_then(prepared::relay_of);
                let replica = relay.map_or(replica, |(_, replica)| replica);
                self.mend(name, &there, replica).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Applies an intercept's own cluster where it is gone, or where another one is in its place, if the entry still is that tunnel's; `true`: it did.
    pub async fn mend(&self, name: &str, intercept: &Intercept, replica: u16) -> Result<bool> {
        if intercept.cluster != own_cluster(name, intercept.port) {
            return Ok(false);
        }
        let is_there = match self.store.cluster_filter(name).await {
            // Whoever may not read it cannot say that it is gone.
            Err(error) if error.is_forbidden() => true,
            filter => {
                filter?.is_some_and(|filter| prepared::has_cluster(&filter, &intercept.cluster))
            }
        };
        if is_there {
            return Ok(false);
        }
        // Read after the object: whoever removes the entry removes its cluster next.
        let there = self.find(name).await?;
        if there.is_none_or(|there| there.address != intercept.address) {
            return Ok(false);
        }
        for object in self.objects(name, intercept, replica)? {
            if object["kind"] == kind::ENVOY_FILTER.name {
                self.store.apply_cluster(name, &object).await?;
            }
        }
        // Whoever has removed the entry meanwhile may have looked before.
        self.store.clear_cluster(name).await?;
        Ok(true)
    }

    /// Moves the end of a lease, in seconds since the epoch.
    pub async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        self.store.renew(name, address, expires).await
    }

    /// Removes an intercept's entry if it still is that tunnel's.
    pub async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        let removed = self.store.remove(name, address).await?;
        if let Some(intercept) = &removed {
            self.store
                .tell(self.regarding(), Happened::Removed, name, intercept)
                .await;
        }
        Ok(removed)
    }

    /// Removes the cluster of an intercept whose entry is gone.
    pub async fn clear(&self, name: &str) -> Result<()> {
        self.store.clear_cluster(name).await
    }

    /// Who removed the intercept of this name that was created then, where the caller may read Events and the remover could write one.
    pub async fn who_removed(&self, name: &str, created: u64) -> Option<String> {
        let cluster = self.store.cluster();
        let namespace = Some(self.store.namespace());
        let events = cluster.list(&kind::EVENT, namespace, None).await.ok()?;
        events::who_removed(&events, name, created)
    }

    /// Removes what nobody renewed for a long time.
    pub async fn sweep(&self) -> Result<Vec<String>> {
        let now = self.now().await?;
        store::sweep(&self.store, self.regarding(), now).await
    }
}

/// Does this entry have a cluster for itself, and another one than `new`? Both are in the one object that the name has.
fn has_other_cluster(name: &str, entry: &Intercept, new: &Intercept) -> bool {
    entry.cluster == own_cluster(name, entry.port) && entry.cluster != new.cluster
}

//! The clusters of intercepts, beside their entries: applied before, held with, and cleared away after them.

use intercept_core::Intercept;
use serde_json::Value;

use super::{ATTEMPTS, FORCED, Store, refused};
use crate::cluster::guarded::resource_version;
use crate::cluster::{ClusterError, kind};
use crate::hint::Result;
use crate::manifest::istio::prepared;
use crate::manifest::istio::{field_manager, names};
use crate::mesh::patch;

impl Store {
    /// Applies an intercept's own EnvoyFilter.
    pub async fn apply_cluster(&self, name: &str, object: &Value) -> Result<()> {
        let applied = self
            .cluster
            .apply(object, &field_manager(name), FORCED)
            .await;
        applied.map(drop).map_err(refused)
    }

    /// Keeps the cluster of an entry that was just written. Whoever clears away an earlier one of the name may have looked before the entry was there: they delete the version that they
    /// read, so another version stops them, and where they were faster it is applied anew. The end that it states is a second late: an equal one would be no other version.
    pub async fn hold_cluster(
        &self,
        name: &str,
        intercept: &Intercept,
        object: &Value,
    ) -> Result<()> {
        let expires = intercept.expires.saturating_add(1);
        let patch = patch::renew_cluster(&intercept.cluster, &intercept.owner, expires);
        let filter = names::of_intercept(name);
        match self.patch(&kind::ENVOY_FILTER, &filter, &patch, name).await {
            Ok(None) => self.apply_cluster(name, object).await,
            // Another command that wanted the name, for another port, was refused.
            Err(error) if error.is_conflict() => self.apply_cluster(name, object).await,
            // Held; or nobody says, and the intercept works with what is there.
            _ => Ok(()),
        }
    }

    /// An intercept's own EnvoyFilter, as it is this moment.
    pub async fn cluster_filter(&self, name: &str) -> Result<Option<Value>, ClusterError> {
        let filter = names::of_intercept(name);
        self.cluster
            .get(&kind::ENVOY_FILTER, Some(&self.namespace), &filter)
            .await
    }

    /// Removes an intercept's own EnvoyFilter, if there is one and no entry of the name is there any more.
    pub async fn clear_cluster(&self, name: &str) -> Result<()> {
        let filter = names::of_intercept(name);
        for _ in 0..ATTEMPTS {
            let object = match self.cluster_filter(name).await {
                // Whoever may not even read them has not made one.
                Err(error) if error.is_forbidden() => return Ok(()),
                other => other?,
            };
            let Some(object) = object.filter(|object| self.is_of_this_workload(object)) else {
                return Ok(());
            };
            // Read after the object: a command that takes the name anew applies its cluster first, and holds it, see [`Self::hold_cluster`].
            let plugin = self.read().await?;
            if plugin.is_some_and(|plugin| plugin.entry(name).is_some()) {
                return Ok(());
            }
            let deleted = self
                .cluster
                .delete_unchanged(
                    &kind::ENVOY_FILTER,
                    Some(&self.namespace),
                    &filter,
                    resource_version(&object),
                )
                .await;
            match deleted {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Err(self.busy())
    }

    /// Its plugin bears the workload's name, and so does the annotation.
    fn is_of_this_workload(&self, filter: &Value) -> bool {
        prepared::workload_of(filter)
            .is_some_and(|(kind, name)| names::of_workload(kind, name) == self.plugin)
    }
}

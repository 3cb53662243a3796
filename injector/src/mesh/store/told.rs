//! The Events by which others learn who intercepts, and who removed what.

use std::time::Duration;

use intercept_core::Intercept;

use super::{Store, object_kind};
use crate::manifest::istio::{Kind, field_manager};
use crate::mesh::events::{self, Happened, Regarding};

/// How long an Event may take to be written: nothing hangs on it, and somebody may be waiting.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

impl Store {
    /// Writes an Event. That nobody may write any, or that the API server takes its time, is no reason to fail.
    pub async fn tell(
        &self,
        workload: (Kind, &str),
        happened: Happened,
        name: &str,
        intercept: &Intercept,
    ) {
        let written = self.write_event(workload, happened, name, intercept);
        let _ = tokio::time::timeout(TELL_TIMEOUT, written).await;
    }

    async fn write_event(
        &self,
        (kind, workload): (Kind, &str),
        happened: Happened,
        name: &str,
        intercept: &Intercept,
    ) {
        let kind = object_kind(kind);
        let found = self.cluster.get(kind, Some(&self.namespace), workload);
        let (found, who, now) = tokio::join!(found, self.cluster.whoami(), self.now());
        let found = found.ok().flatten();
        let regarding = Regarding {
            kind,
            namespace: &self.namespace,
            name: workload,
            uid: found
                .as_ref()
                .and_then(|object| object["metadata"]["uid"].as_str()),
        };
        let who = who.map_or_else(|_| intercept.owner.clone(), |who| who.name);
        let now = now.unwrap_or(intercept.created);
        let event = events::event(regarding, happened, name, intercept, &who, now);
        let _ = self.cluster.create(&event, &field_manager(name)).await;
    }
}

//! Data types of the controller: Intercepts, planned changes, and reports of replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use intercept_manifest::istio::Workload;
use intercept_manifest::istio::resource::{ACCEPTED, Intercept, InterceptSpec};
use serde_json::Value;

use super::lease::Lease;

/// Identifies a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The object of this name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// An Intercept whose lease runs.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The object.
    pub intercept: Arc<Intercept>,
    /// The WasmPlugin of its workload, which may not exist.
    pub plugin: Key,
    /// The EnvoyFilter of its upstream cluster, which may not exist.
    pub filter: Key,
    /// Its lease.
    pub lease: Lease,
}

impl Candidate {
    /// Its spec.
    pub fn spec(&self) -> &InterceptSpec {
        &self.intercept.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.intercept.name()
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.intercept.uid()
    }

    /// Its age; smaller is older.
    pub fn age(&self) -> (u64, &str) {
        (self.intercept.created(), self.uid())
    }

    /// Is it accepted according to its status?
    pub fn is_recorded_as_accepted(&self) -> bool {
        self.intercept
            .condition(ACCEPTED)
            .is_some_and(|condition| condition.status == "True")
    }

    /// Its key.
    pub fn key(&self) -> Key {
        Key::new(self.intercept.namespace(), self.name())
    }
}

/// Reports of a workload's ready replicas, or why these cannot be found.
pub type Reports = Result<Vec<PodReport>, String>;

/// The report of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// The state of its proxy, or why that is unknown.
    pub state: Result<PodState, String>,
}

/// The configuration that a proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodState {
    /// The hash of its intercepts.
    pub hash: u64,
    /// How many of them were active when it received them.
    pub active: u64,
}

/// A Kubernetes Event for an Intercept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The Intercept.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Is it a warning?
    pub is_warning: bool,
    /// The reason, one word.
    pub reason: String,
    /// The text.
    pub note: String,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The object.
    pub key: Key,
    /// The version that the decision is based on; empty if the object does not exist.
    pub basis: String,
    /// The request body.
    pub body: Value,
    /// Events to publish once the write has succeeded.
    pub events: Vec<Event>,
}

/// A write that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// The API server's error, or why it was not reached.
    pub why: String,
    /// Has it been refused for some seconds? Then it is retried only after its cause has changed.
    pub is_refused: bool,
}

/// An object to delete.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// The object.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// The Event to publish once it is deleted.
    pub event: Option<Event>,
}

/// The planned changes, in this order: filters, texts, statuses, deletions.
#[derive(Debug, Default)]
pub struct Plan {
    /// EnvoyFilters to apply.
    pub filters: Vec<Write>,
    /// WasmPlugins to apply, each with only its text.
    pub texts: Vec<Write>,
    /// Merge patches of the status.
    pub statuses: Vec<Write>,
    /// Intercepts to delete.
    pub ended: Vec<Removal>,
    /// EnvoyFilters to delete.
    pub leftovers: Vec<Removal>,
    /// The workloads to probe, each with the hash that the replicas should have.
    pub watched: BTreeMap<Key, (Workload, u64)>,
    /// When to decide again without a change, in seconds since the epoch.
    pub next: Option<u64>,
}

impl Plan {
    /// Requests a decision at this time.
    pub fn wake(&mut self, at: u64) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

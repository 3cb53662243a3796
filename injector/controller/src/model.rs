//! What the controller's parts hand to each other: Intercepts and what is planned for them, and what replicas report. Plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use intercept_manifest::istio::Workload;
use intercept_manifest::istio::resource::{ACCEPTED, Intercept, InterceptSpec};
use serde_json::Value;

use super::lease::Lease;

/// A namespaced object.
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
    /// As it is there.
    pub intercept: Arc<Intercept>,
    /// The WasmPlugin of its workload, whether there is one or not.
    pub plugin: Key,
    /// The EnvoyFilter of its cluster, whether there is one or not.
    pub filter: Key,
    /// Its lease.
    pub lease: Lease,
}

impl Candidate {
    /// What is asked for.
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

    /// The smaller is the older.
    pub fn age(&self) -> (u64, &str) {
        (self.intercept.created(), self.uid())
    }

    /// Does its status say that it is accepted?
    pub fn is_recorded_as_accepted(&self) -> bool {
        self.intercept
            .condition(ACCEPTED)
            .is_some_and(|condition| condition.status == "True")
    }

    /// The object.
    pub fn key(&self) -> Key {
        Key::new(self.intercept.namespace(), self.name())
    }
}

/// What the ready replicas of a workload say, or why they cannot be found.
pub type Reports = Result<Vec<PodReport>, String>;

/// What a replica says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// What its proxy has, or why that is not known.
    pub state: Result<PodState, String>,
}

/// What a proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodState {
    /// The hash of its intercepts.
    pub hash: u64,
    /// How many of them were active when it took them.
    pub active: u64,
}

/// Something that happened to an Intercept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The Intercept.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Is it something to look at?
    pub is_warning: bool,
    /// In one word.
    pub reason: String,
    /// For people.
    pub note: String,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The object.
    pub key: Key,
    /// The version that it was decided on; empty where there is none.
    pub basis: String,
    /// What is sent.
    pub body: Value,
    /// What to publish once it is done.
    pub events: Vec<Event>,
}

/// A write that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// What the API server said, or why it was not reached.
    pub why: String,
    /// Has it been refused for some seconds? It is not written until its cause changes.
    pub is_refused: bool,
}

/// An object to delete.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// The object.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// What to publish once it is done.
    pub event: Option<Event>,
}

/// What is to be written: filters, then texts, then statuses; then what is deleted.
#[derive(Debug, Default)]
pub struct Plan {
    /// EnvoyFilters to apply.
    pub filters: Vec<Write>,
    /// WasmPlugins to apply, each with nothing but its text.
    pub texts: Vec<Write>,
    /// Merge patches of the status.
    pub statuses: Vec<Write>,
    /// Intercepts to delete.
    pub ended: Vec<Removal>,
    /// EnvoyFilters to delete.
    pub leftovers: Vec<Removal>,
    /// The workloads whose replicas are to be asked, each with the hash that they should have.
    pub watched: BTreeMap<Key, (Workload, u64)>,
    /// When to decide again although nothing changed, in seconds since the epoch.
    pub next: Option<u64>,
}

impl Plan {
    /// Asks for a decision at this time.
    pub fn wake(&mut self, at: u64) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

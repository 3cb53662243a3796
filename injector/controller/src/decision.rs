//! Decides what to write, from a snapshot of the cluster and the time. Pure: no I/O, no clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use intercept_manifest::istio::names;
use intercept_manifest::istio::preparation::ControlledPlugin;
use intercept_manifest::istio::resource::Intercept;
use kube::core::DynamicObject;

use super::admit::{Admission, Verdicts, admit};
use super::lease::{Lease, Leases};
use super::model::{Candidate, Key, Plan, PodReport, Removal, Reports, Unwritten, Write};
use super::render::{self, Rendered};
use super::status::{self, Facts};

/// How long an EnvoyFilter outlives its Intercept, in seconds. It takes no new requests.
///
/// A request that breaks off at the developer's end needs its upstream cluster to reach the app.
const FILTER_GRACE: u64 = 30;

/// How long to wait for the proxies to drop an Intercept with an expired lease, in seconds.
const LEAVING: u64 = 2;

/// The largest accepted difference between the controller's clock and the API server's, in seconds.
///
/// With a larger one, leases would end early or never, and filters would accept none of them.
pub const MAX_SKEW: u64 = 60;

/// How long an update of a replica may take, in seconds. A fifth of a second is usual.
const UPDATE: u64 = 3;

/// How many rendered texts of a workload to remember: a proxy may be some changes behind.
const HISTORY: usize = 8;

/// The current state of the cluster.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// All Intercepts.
    pub intercepts: Vec<Arc<Intercept>>,
    /// The WasmPlugins that operators prepared, or why they cannot be used.
    pub plugins: BTreeMap<Key, Result<ControlledPlugin, String>>,
    /// The existing EnvoyFilters of Intercepts.
    pub filters: BTreeMap<Key, Arc<DynamicObject>>,
    /// Reports of a workload's ready replicas, by its WasmPlugin.
    pub reports: BTreeMap<Key, Reports>,
    /// EnvoyFilters and WasmPlugins that could not be written.
    pub unwritten: BTreeMap<Key, Unwritten>,
    /// Seconds since the epoch.
    pub now: u64,
    /// How far the API server's clock is ahead of this one, in seconds.
    pub skew: i64,
}

/// State between two decisions.
///
/// It is empty after a restart: leases are then read from the statuses, and grace periods start over.
#[derive(Debug, Default)]
pub struct Memory {
    leases: Leases,
    verdicts: Verdicts,
    /// The newest texts of each workload, the newest first.
    history: BTreeMap<Key, Vec<Rendered>>,
    /// Since when an EnvoyFilter is not needed.
    unneeded: HashMap<Key, u64>,
    /// Since when an Intercept's lease has been over, by uid.
    over: HashMap<String, u64>,
}

/// Decides what to write.
pub fn decide(snapshot: &Snapshot, memory: &mut Memory) -> Plan {
    let mut plan = Plan::default();
    if snapshot.skew.unsigned_abs() > MAX_SKEW {
        // No lease is followed: the clock is wrong.
        let unknown = |_: &Intercept, _: &Key| Lease {
            expires: u64::MAX,
            observed: None,
        };
        for one in candidates(snapshot, unknown).0 {
            let facts = Facts::Skewed(snapshot.skew);
            status::report(&one, facts, snapshot.now, &mut plan);
        }
        return plan;
    }
    let follow = |one: &Intercept, plugin: &Key| {
        let plugin = snapshot.plugins.get(plugin).map(Result::as_ref);
        let longest = plugin
            .and_then(Result::ok)
            .map_or(u64::MAX, |plugin| plugin.limits.max_lease_seconds);
        memory.leases.follow(one, longest, snapshot.now)
    };
    let (running, over) = candidates(snapshot, follow);
    let uids: HashSet<&str> = running.iter().chain(&over).map(Candidate::uid).collect();
    memory.leases.retain(|uid| uids.contains(uid));
    let admission = admit(
        &running,
        &snapshot.plugins,
        &mut memory.verdicts,
        snapshot.now,
    );
    for (key, plugin) in &snapshot.plugins {
        if let Ok(plugin) = plugin {
            write_text(
                key,
                plugin,
                (&running, &admission),
                snapshot.reports.get(key),
                snapshot.now,
                memory,
                &mut plan,
            );
        }
    }
    write_filters(snapshot, &running, &admission, &mut plan);
    for one in running.iter().chain(&over) {
        if let Some(Ok(plugin)) = snapshot.plugins.get(&one.plugin) {
            let newest = memory
                .history
                .get(&one.plugin)
                .and_then(|history| history.first());
            let hash = newest.map_or(0, |rendered| rendered.hash);
            let watched = || (plugin.preparation.workload.clone(), hash);
            plan.watched
                .entry(one.plugin.clone())
                .or_insert_with(watched);
        }
    }
    for (place, one) in running.iter().enumerate() {
        let facts = match admission.refused.get(&place) {
            Some(refusal) => Facts::Refused(refusal),
            None => Facts::Accepted {
                history: memory.history.get(&one.plugin).map_or(&[], Vec::as_slice),
                reports: snapshot.reports.get(&one.plugin),
                filter_failure: failure(snapshot, &one.filter, &plan.filters),
                text_failure: failure(snapshot, &one.plugin, &plan.texts),
            },
        };
        status::report(one, facts, snapshot.now, &mut plan);
        plan.wake(one.lease.expires);
    }
    end(snapshot, &over, memory, &mut plan);
    clear(snapshot, &running, &admission, memory, &mut plan);
    memory
        .history
        .retain(|key, _| snapshot.plugins.contains_key(key));
    plan
}

/// The Intercepts whose lease runs, and those whose lease is over.
///
/// One that is being deleted counts as gone: a finalizer may keep it forever.
fn candidates(
    snapshot: &Snapshot,
    mut lease_of: impl FnMut(&Intercept, &Key) -> Lease,
) -> (Vec<Candidate>, Vec<Candidate>) {
    let mut running = Vec::new();
    let mut over = Vec::new();
    for intercept in &snapshot.intercepts {
        let metadata = &intercept.metadata;
        let (Some(_), Some(namespace)) = (&metadata.uid, &metadata.namespace) else {
            continue;
        };
        if metadata.deletion_timestamp.is_some() {
            continue;
        }
        let spec = &intercept.spec;
        let workload = (spec.workload.kind, spec.workload.name.as_str());
        let plugin = names::of_workload(workload.0, workload.1);
        let plugin = Key::new(namespace, &plugin);
        let filter = names::of_intercept(intercept.name(), workload, spec.port, spec.tunnel.relay);
        let one = Candidate {
            lease: lease_of(intercept, &plugin),
            intercept: Arc::clone(intercept),
            plugin,
            filter: Key::new(namespace, &filter),
        };
        if one.lease.is_over(snapshot.now) {
            over.push(one);
        } else {
            running.push(one);
        }
    }
    (running, over)
}

/// Plans the text of a workload if it differs from the current one.
fn write_text(
    key: &Key,
    plugin: &ControlledPlugin,
    (running, admission): (&[Candidate], &Admission),
    reports: Option<&Reports>,
    now: u64,
    memory: &mut Memory,
    plan: &mut Plan,
) {
    let accepted = admission.accepted.get(key).map_or(&[][..], Vec::as_slice);
    if accepted.is_empty() && plugin.text.is_none() {
        return;
    }
    let (mut text, renew_at) = render::text(plugin, running, accepted, now);
    if let Some(at) = renew_at {
        plan.wake(at);
    }
    let history = memory.history.entry(key.clone()).or_default();
    if let (true, Some(there)) = (history.is_empty(), &plugin.text) {
        history.push(Rendered::found(there, plugin, running, accepted, now));
    }
    if let Some(there) = plugin
        .text
        .as_ref()
        .filter(|there| there.trim_end() == text)
    {
        let lost_at = history.first().and_then(|newest| lost_at(newest, reports));
        match lost_at {
            // It was repeated before.
            _ if there.len() > text.len() => text.clone_from(there),
            // A changed text with the same meaning causes another update.
            Some(at) if at <= now => text.push(' '),
            Some(at) => plan.wake(at),
            None => {}
        }
    }
    if history.first().is_none_or(|newest| newest.text != text) {
        history.insert(
            0,
            Rendered::new(text.clone(), plugin, running, accepted, now),
        );
        history.truncate(HISTORY);
    }
    if plugin.text.as_ref() != Some(&text) {
        plan.texts.push(Write {
            key: key.clone(),
            basis: plugin.resource_version.clone(),
            body: plugin.patch(&text),
            events: Vec::new(),
        });
    }
}

/// From when a replica with an older text has lost an update, in seconds since the epoch.
///
/// When two updates of a filter come close together, Istio's agent forwards them in any order (`deltaRewriteAndForward` of its xDS proxy runs in the background),
/// and may leave a proxy with the older one.
fn lost_at(newest: &Rendered, reports: Option<&Reports>) -> Option<u64> {
    let pods = reports?.as_ref().ok()?;
    let mut states = pods.iter().filter_map(|pod| pod.state.as_ref().ok());
    let is_behind = states.any(|state| state.hash != newest.hash);
    is_behind.then(|| newest.at.saturating_add(UPDATE))
}

/// Plans the EnvoyFilters of accepted Intercepts if they differ from the current ones.
fn write_filters(
    snapshot: &Snapshot,
    running: &[Candidate],
    admission: &Admission,
    plan: &mut Plan,
) {
    for (key, accepted) in &admission.accepted {
        let Some(Ok(plugin)) = snapshot.plugins.get(key) else {
            continue;
        };
        for (place, entry) in accepted {
            let one = &running[*place];
            let Some(body) = render::filter(plugin, one, entry) else {
                continue;
            };
            let key = one.filter.clone();
            let there = snapshot.filters.get(&key);
            if !there.is_some_and(|there| render::is_as_rendered(there, &body)) {
                let basis = there.and_then(|there| there.metadata.resource_version.clone());
                plan.filters.push(Write {
                    key,
                    basis: basis.unwrap_or_default(),
                    body,
                    events: Vec::new(),
                });
            }
        }
    }
}

/// Why a planned write of this object failed before.
fn failure<'s>(snapshot: &'s Snapshot, key: &Key, writes: &[Write]) -> Option<&'s Unwritten> {
    let failure = snapshot.unwritten.get(key)?;
    let is_planned = writes.iter().any(|write| write.key == *key);
    is_planned.then_some(failure)
}

/// Ends Intercepts with an expired lease.
///
/// Deletes them once no proxy has them, so that a command can wait for that.
fn end(snapshot: &Snapshot, over: &[Candidate], memory: &mut Memory, plan: &mut Plan) {
    let uids: HashSet<&str> = over.iter().map(Candidate::uid).collect();
    memory.over.retain(|uid, _| uids.contains(uid.as_str()));
    for one in over {
        let since = *memory
            .over
            .entry(one.uid().to_owned())
            .or_insert(snapshot.now);
        let history = memory
            .history
            .get(&one.plugin)
            .map_or(&[][..], Vec::as_slice);
        let has_it = |pod: &PodReport| {
            pod.state.as_ref().is_ok_and(|state| {
                let rendered = history.iter().find(|one| one.hash == state.hash);
                rendered.is_none_or(|rendered| rendered.uids.contains(one.uid()))
            })
        };
        let reports = snapshot.reports.get(&one.plugin);
        let has_no_pod =
            |reports: &Reports| reports.as_ref().is_ok_and(|pods| !pods.iter().any(has_it));
        let is_gone = history.is_empty() || reports.is_some_and(has_no_pod);
        if is_gone || snapshot.now >= since.saturating_add(LEAVING) {
            plan.ended.push(Removal {
                key: one.key(),
                uid: one.uid().to_owned(),
                event: Some(status::expired(one)),
            });
        } else {
            plan.wake(since.saturating_add(LEAVING));
        }
    }
}

/// Deletes EnvoyFilters that no accepted Intercept needs.
fn clear(
    snapshot: &Snapshot,
    running: &[Candidate],
    admission: &Admission,
    memory: &mut Memory,
    plan: &mut Plan,
) {
    let accepted = admission.accepted.values().flatten();
    let needed: HashSet<Key> = accepted
        .map(|(place, _)| running[*place].filter.clone())
        .collect();
    let is_unneeded = |key: &Key| snapshot.filters.contains_key(key) && !needed.contains(key);
    memory.unneeded.retain(|key, _| is_unneeded(key));
    for (key, filter) in snapshot.filters.iter().filter(|(key, _)| is_unneeded(key)) {
        let since = *memory.unneeded.entry(key.clone()).or_insert(snapshot.now);
        let at = since.saturating_add(FILTER_GRACE);
        if snapshot.now < at {
            plan.wake(at);
            continue;
        }
        plan.leftovers.push(Removal {
            key: key.clone(),
            uid: filter.metadata.uid.clone().unwrap_or_default(),
            event: None,
        });
    }
}

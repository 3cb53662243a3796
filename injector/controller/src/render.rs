//! Renders the text of a workload's intercepts, and the EnvoyFilter of each. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use intercept_core::{Config, Intercept as Entry, Matcher, config_hash};
use intercept_manifest::istio::intercept;
use intercept_manifest::istio::preparation::ControlledPlugin;
use kube::core::DynamicObject;
use serde_json::Value;

use super::model::Candidate;

/// When to write renewals: with less than this many seconds left, and less than half of the lease.
///
/// Every write is a push to all proxies of the workload.
const RENEW_BEFORE: u64 = 600;

/// A text of intercepts, and what a proxy with it reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// `spec.pluginConfig.intercepts`.
    pub text: String,
    /// The filter's hash of the text.
    pub hash: u64,
    /// How many entries are active for a proxy with a correct clock.
    pub active: u64,
    /// The uids of the Intercepts in it.
    pub uids: BTreeSet<String>,
    /// When it was rendered, in seconds since the epoch.
    pub at: u64,
}

impl Rendered {
    /// The text that exists when a controller starts.
    ///
    /// Its proxies have it, so accepted Intercepts in it are programmed.
    pub(super) fn found(
        text: &str,
        plugin: &ControlledPlugin,
        running: &[Candidate],
        accepted: &[(usize, Entry)],
        now: u64,
    ) -> Self {
        let entries: HashMap<String, Entry> = plugin.entries().into_iter().collect();
        let has = |one: &Candidate| {
            let entry = entries.get(one.name());
            entry.is_some_and(|entry| entry.address == one.spec().tunnel.address)
        };
        let there = accepted.iter().map(|(place, _)| &running[*place]);
        let uids = there.filter(|one| has(one)).map(|one| one.uid().to_owned());
        let uids = uids.collect();
        let (matcher, _) = Matcher::compile(Config {
            limits: plugin.limits.clone(),
            intercepts: entries.into_iter().collect(),
            ..Config::default()
        });
        Self {
            hash: config_hash(text),
            active: matcher.active(now) as u64,
            uids,
            at: now,
            text: text.to_owned(),
        }
    }

    /// Parses the text as the filter does.
    pub(super) fn new(
        text: String,
        plugin: &ControlledPlugin,
        running: &[Candidate],
        accepted: &[(usize, Entry)],
        now: u64,
    ) -> Self {
        let intercepts = accepted
            .iter()
            .map(|(place, entry)| (running[*place].name().to_owned(), entry.clone()));
        let (matcher, _) = Matcher::compile(Config {
            limits: plugin.limits.clone(),
            intercepts: intercepts.collect(),
            ..Config::default()
        });
        Self {
            hash: config_hash(&text),
            active: matcher.active(now) as u64,
            uids: accepted
                .iter()
                .map(|(place, _)| running[*place].uid().to_owned())
                .collect(),
            at: now,
            text,
        }
    }
}

/// Renders the text in the order of `accepted`. Also returns the latest time to write a renewal.
///
/// While all entries have enough time left, they keep their written expiry; otherwise each gets its own.
pub(super) fn text(
    plugin: &ControlledPlugin,
    running: &[Candidate],
    accepted: &[(usize, Entry)],
    now: u64,
) -> (String, Option<u64>) {
    let there: HashMap<String, Entry> = plugin.entries().into_iter().collect();
    let mut renew_at: Option<u64> = None;
    let mut kept = Vec::with_capacity(accepted.len());
    for (place, entry) in accepted {
        let one = &running[*place];
        let lease = u64::from(one.spec().lease_seconds);
        let written = there.get(one.name()).map_or(0, |there| there.expires);
        let at = written.saturating_sub(lease.min(RENEW_BEFORE.max(lease / 2)));
        let is_enough = written <= entry.expires && now < at;
        let expires = if is_enough { written } else { entry.expires };
        if expires < entry.expires {
            renew_at = Some(renew_at.map_or(at, |earliest| earliest.min(at)));
        }
        let entry = Entry {
            expires,
            ..entry.clone()
        };
        kept.push((one.name(), entry));
    }
    let text = intercept::text(kept.iter().map(|(name, entry)| (*name, entry)));
    if plugin.text.as_deref().map(str::trim_end) == Some(&text) {
        return (text, renew_at);
    }
    let fresh = accepted.iter();
    let fresh = fresh.map(|(place, entry)| (running[*place].name(), entry));
    (intercept::text(fresh), None)
}

/// Renders the EnvoyFilter of an accepted Intercept.
pub(super) fn filter(plugin: &ControlledPlugin, one: &Candidate, entry: &Entry) -> Option<Value> {
    let filter = intercept::envoy_filter(plugin, one.name(), entry, one.spec().tunnel.relay)?;
    Some(filter.value().clone())
}

/// Does the object contain all that was rendered, and nothing else in its spec?
pub(super) fn is_as_rendered(there: &DynamicObject, rendered: &Value) -> bool {
    let metadata = &there.metadata;
    let has = |found: &Option<BTreeMap<String, String>>, map: &str| {
        let wanted = rendered["metadata"][map].as_object();
        let mut wanted = wanted.into_iter().flatten();
        wanted.all(|(key, value)| {
            found
                .as_ref()
                .and_then(|found| found.get(key))
                .is_some_and(|found| value == found)
        })
    };
    let owner = &rendered["metadata"]["ownerReferences"][0]["uid"];
    let mut owners = metadata.owner_references.iter().flatten();
    there.data["spec"] == rendered["spec"]
        && has(&metadata.labels, "labels")
        && has(&metadata.annotations, "annotations")
        && owners.any(|one| *owner == one.uid)
}

//! What is left over of intercepts in a namespace: entries whose lease is over, entries that the filter leaves out, clusters without an entry, entries without their cluster.

use serde_json::Value;

use super::Check;
use super::seen::{Intercepts, name_of};
use crate::envoy::SWEEP_AFTER;
use crate::left_out;
use crate::manifest::istio::intercept::is_own_cluster;
use crate::manifest::istio::names;
use crate::manifest::istio::prepared;
use crate::shell::quote;

const ID: &str = "leftovers";

/// `now` in seconds since the epoch, by the API server, where it says so.
pub fn checks(seen: &Intercepts, time: Option<u64>) -> Vec<Check> {
    let now = time.unwrap_or_default();
    let (plugins, filters) = match (&seen.plugins, &seen.filters) {
        (Ok(plugins), Ok(filters)) => (plugins, filters),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Check::unanswered(
                ID,
                "what is left over of intercepts",
                error,
            )];
        }
    };
    let entries: Vec<(&String, &Value)> = plugins.iter().flat_map(entries).collect();
    let filters: Vec<(&str, &Value)> = filters
        .iter()
        .filter_map(|filter| {
            Some((
                filter["metadata"]["labels"][names::INTERCEPT].as_str()?,
                filter,
            ))
        })
        .collect();
    let left_out: Vec<LeftOut> = plugins
        .iter()
        .flat_map(|plugin| all_left_out(plugin, time))
        .collect();
    let mut checks: Vec<Check> = left_out
        .iter()
        .map(|one| one.check(&seen.namespace))
        .collect();
    let is_taken = |name: &str| left_out.iter().all(|one| one.name != name);
    for (name, entry) in entries.iter().filter(|(name, _)| is_taken(name)) {
        let expires = entry["expires"].as_u64().unwrap_or(0);
        let has_cluster = filters.iter().any(|(known, _)| known == name);
        if expires.saturating_add(SWEEP_AFTER) < now {
            checks.push(Check::perhaps(
                ID,
                format!(
                    "{name}: its lease has been over for {} min",
                    (now - expires) / 60
                ),
                format!(
                    "injector list{0} clears it away; if it stays, an operator does: injector leave{0} --force {1}",
                    seen.place,
                    quote(name)
                ),
            ));
        } else if expires > now && is_own_cluster(name, entry) && !has_cluster {
            checks.push(Check::bad(
                ID,
                format!(
                    "{name}: its EnvoyFilter {} is gone, so the cluster answers all of its requests",
                    names::of_intercept(name)
                ),
                format!(
                    "its command puts it back within a minute; where it does not, its developer starts it again, or: injector leave{} {}",
                    seen.place,
                    quote(name)
                ),
            ));
        }
    }
    for (name, filter) in &filters {
        // Until then it may be one that was applied a moment ago, before its entry, or one that a request under way still needs.
        if !entries.iter().any(|(known, _)| known == name) && is_over(filter, now) {
            checks.push(Check::perhaps(
                ID,
                format!("EnvoyFilter {}: a cluster without an intercept", name_of(filter)),
                format!(
                    "injector list{} clears it away; if it stays, an operator does: kubectl -n {} delete envoyfilter {}",
                    seen.place,
                    quote(&seen.namespace),
                    name_of(filter)
                ),
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::good(
            ID,
            format!("{}: nothing is left over of intercepts", seen.namespace),
        ));
    }
    checks
}

/// Is its lease over for so long that it is cleared away? One that does not say is nobody's any more.
fn is_over(filter: &Value, now: u64) -> bool {
    prepared::lease_of(filter).is_none_or(|expires| expires.saturating_add(SWEEP_AFTER) < now)
}

/// An entry that the filter of this plugin leaves out.
struct LeftOut<'p> {
    plugin: &'p str,
    name: String,
    reason: String,
}

impl LeftOut<'_> {
    fn check(&self, namespace: &str) -> Check {
        let (plugin, namespace) = (quote(self.plugin), quote(namespace));
        Check::bad(
            ID,
            format!("WasmPlugin {plugin}: the filter leaves out {}", self.reason),
            format!(
                "its developer starts it again, or whoever may mends it: kubectl -n {namespace} edit wasmplugin {plugin}"
            ),
        )
    }
}

/// By the code that the filter runs.
fn all_left_out(plugin: &Value, now: Option<u64>) -> Vec<LeftOut<'_>> {
    let text = plugin.pointer("/spec/pluginConfig").map(Value::to_string);
    let (config, unread) = intercept_core::parse(text.unwrap_or_default().as_bytes());
    let unread = unread.into_iter();
    let unread = unread.filter_map(|rejected| Some((rejected.intercept?, rejected.reason)));
    let one = |(name, reason)| LeftOut {
        plugin: name_of(plugin),
        name,
        reason,
    };
    let left_out = left_out::reasons(config, now);
    unread.chain(left_out).map(one).collect()
}

fn entries(plugin: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let entries = plugin
        .pointer("/spec/pluginConfig/intercepts")
        .and_then(Value::as_object);
    entries.into_iter().flatten()
}

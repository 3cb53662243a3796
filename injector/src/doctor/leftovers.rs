//! What is left over of intercepts in a namespace: entries whose lease is over, clusters without an entry, entries without their cluster.

use serde_json::Value;

use super::Check;
use super::seen::{Intercepts, name_of};
use crate::curl::quote;
use crate::envoy::SWEEP_AFTER;
use crate::manifest::istio::intercept::own_cluster;
use crate::manifest::istio::names;

const ID: &str = "leftovers";

/// `now` in seconds since the epoch, by the API server.
pub fn checks(seen: &Intercepts, now: u64) -> Vec<Check> {
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
    let mut checks = Vec::new();
    for (name, entry) in &entries {
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
                    "injector list clears it away; if it stays, an operator does: injector leave -n {} --force {}",
                    quote(&seen.namespace),
                    quote(name)
                ),
            ));
        } else if expires > now && entry["cluster"] == own_cluster(name) && !has_cluster {
            checks.push(Check::bad(
                ID,
                format!(
                    "{name}: its EnvoyFilter {} is gone, so the cluster answers all of its requests",
                    names::of_intercept(name)
                ),
                format!("its developer starts it again; or: injector leave {}", quote(name)),
            ));
        }
    }
    for (name, filter) in &filters {
        if !entries.iter().any(|(known, _)| known == name) {
            checks.push(Check::perhaps(
                ID,
                format!("EnvoyFilter {}: a cluster without an intercept", name_of(filter)),
                format!(
                    "it is cleared away ten minutes after its lease; at once: kubectl -n {} delete envoyfilter {}",
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

fn entries(plugin: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let entries = plugin
        .pointer("/spec/pluginConfig/intercepts")
        .and_then(Value::as_object);
    entries.into_iter().flatten()
}

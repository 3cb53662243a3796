//! The Intercepts of a namespace: what the controller says of each, and what is left of those that are gone.

use std::collections::BTreeSet;

use intercept_manifest::istio::preparation;
use intercept_manifest::istio::resource::{ACCEPTED, Intercept, PROGRAMMED};

use super::Check;
use super::snapshot::Intercepts;
use crate::shell::quote;

const ID: &str = "intercepts";

pub fn checks(seen: &Intercepts) -> Vec<Check> {
    let (plugins, all) = match (&seen.plugins, &seen.all) {
        (Ok(plugins), Ok(all)) => (plugins, all),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Check::unanswered(ID, "the Intercepts", error)];
        }
    };
    let mut checks: Vec<Check> = all.iter().filter_map(|one| wrong(one, seen)).collect();
    let known: BTreeSet<&str> = all.iter().map(Intercept::name).collect();
    let plugins = plugins
        .iter()
        .filter_map(|plugin| preparation::read(plugin).ok()?);
    for (name, _) in plugins.flat_map(|plugin| plugin.entries()) {
        if !known.contains(name.as_str()) {
            checks.push(Check::warn(
                ID,
                format!("{name}: it is gone, and the proxies still have it"),
                "the controller takes it from them within a second; where it does not, it does not run",
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::pass(
            ID,
            format!(
                "{}: all proxies have its {} intercepts",
                seen.namespace,
                all.len()
            ),
        ));
    }
    checks
}

fn wrong(one: &Intercept, seen: &Intercepts) -> Option<Check> {
    let name = one.name();
    let Some(accepted) = one.condition(ACCEPTED) else {
        return Some(Check::warn(
            ID,
            format!("{name}: the controller has not looked at it"),
            format!(
                "kubectl get intercept -n {} {}",
                quote(&seen.namespace),
                quote(name)
            ),
        ));
    };
    if accepted.status != "True" {
        return Some(Check::fail(
            ID,
            format!("{name}: {} ({})", accepted.message, accepted.reason),
            format!(
                "its developer starts it again otherwise, or ends it: injector leave{} {}",
                seen.place,
                quote(name)
            ),
        ));
    }
    let programmed = one.condition(PROGRAMMED)?;
    let found = format!("{name}: {} ({})", programmed.message, programmed.reason);
    match programmed.status.as_str() {
        "True" => None,
        "Unknown" => Some(Check::unknown(
            ID,
            format!(
                "{found}; the controller asks port 15090 of the pods, which a NetworkPolicy may close"
            ),
        )),
        _ => Some(Check::warn(
            ID,
            found,
            format!("injector status{} {}", seen.place, quote(name)),
        )),
    }
}

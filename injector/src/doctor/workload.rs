//! A workload: can it be prepared, is it, and is what was prepared what it needs today?

use std::collections::BTreeSet;

use intercept_core::{Limits, SCHEMA_VERSION};
use serde_json::Value;

use super::Check;
use super::seen::{Answer, Target, name_of};
use crate::manifest::istio::{Workload, names};

/// The oldest Istio whose sidecars take what is written: major, minor.
const OLDEST_ISTIO: (u32, u32) = (1, 29);

pub fn checks(target: &Target) -> Vec<Check> {
    let label = target.label();
    let facts = match target.facts() {
        Ok(facts) => facts,
        Err(reason) => return vec![Check::bad(reason.to_string(), reason.hint())],
    };
    let mut checks = vec![Check::good(format!("{label}: its pods have sidecars"))];
    checks.extend(istio_version(target));
    for reason in &facts.left_out {
        checks.push(Check::perhaps(
            format!("{label}: {reason}"),
            "requests to that port cannot be intercepted; name it http-…, or set appProtocol: http",
        ));
    }
    checks.extend(plugin(target, facts.probes_go_through));
    checks.extend(gate(target, &facts.workload));
    checks.extend(rules(target));
    checks
}

/// By the image's tag, the only thing in a pod that says it.
fn istio_version(target: &Target) -> Option<Check> {
    let labels = target.labels();
    let pod = target.pods.iter().find(|pod| {
        let own = super::seen::labels(pod.pointer("/metadata/labels"));
        crate::prepare::contains(&own, &labels)
    })?;
    let containers = ["/spec/containers", "/spec/initContainers"].iter();
    let mut containers = containers
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten();
    let proxy = containers.find(|container| container["name"] == "istio-proxy")?;
    let image = proxy["image"].as_str()?;
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let number = |part: Option<&str>| {
        part?
            .split(|char: char| !char.is_ascii_digit())
            .next()?
            .parse::<u32>()
            .ok()
    };
    let mut parts = tag.split('.');
    let version = number(parts.next()).zip(number(parts.next()));
    let (major, minor) = OLDEST_ISTIO;
    Some(match version {
        Some(found) if found >= OLDEST_ISTIO => Check::good(format!("sidecars are of Istio {tag}")),
        Some(_) => Check::bad(
            format!("sidecars are of Istio {tag}, expected {major}.{minor} or newer"),
            "upgrade the mesh, then restart the workload",
        ),
        None => Check::perhaps(
            format!("sidecars run {image}: the tag tells no version of Istio"),
            format!("it must be {major}.{minor} or newer: istioctl version"),
        ),
    })
}

fn plugin(target: &Target, probes_go_through: bool) -> Vec<Check> {
    let plugin = match &target.plugin {
        Ok(Some(plugin)) => plugin,
        Ok(None) => {
            return vec![Check::bad(
                format!("{}: it is not prepared for intercepts", target.label()),
                format!("an operator prepares it: {}", target.command()),
            )];
        }
        Err(error) => return vec![Check::unanswered("WasmPlugin", error)],
    };
    let config = plugin.pointer("/spec/pluginConfig").unwrap_or(&Value::Null);
    let version = config["version"].as_u64();
    let mut checks = vec![match version == Some(SCHEMA_VERSION) {
        true => Check::good(format!("{}: it is prepared", target.label())),
        false => Check::bad(
            format!(
                "WasmPlugin {}: version: expected {SCHEMA_VERSION}, found {}",
                name_of(plugin),
                config["version"]
            ),
            format!("an operator prepares it again: {}", target.command()),
        ),
    }];
    let limits: Result<Limits, _> = serde_json::from_value(config["limits"].clone());
    match limits {
        Ok(limits) if limits.allow_all && probes_go_through => checks.push(Check::perhaps(
            "the kubelet probes the program itself, so --http-header=all is refused here",
            "set the annotation sidecar.istio.io/rewriteAppHTTPProbers to \"true\", or leave it out",
        )),
        Ok(_) => {}
        Err(error) => checks.push(Check::bad(
            format!("WasmPlugin {}: limits: {error}", name_of(plugin)),
            format!("an operator prepares it again: {}", target.command()),
        )),
    }
    checks
}

/// The ports of the gate against those that the workload has today.
fn gate(target: &Target, workload: &Workload) -> Vec<Check> {
    if !matches!(&target.plugin, Ok(Some(_))) {
        return Vec::new();
    }
    let name = names::of_workload(workload);
    let filters = match &target.filters {
        Ok(filters) => filters,
        Err(error) => return vec![Check::unanswered("EnvoyFilters", error)],
    };
    let again = format!("an operator prepares it again: {}", target.command());
    let Some(gate) = filters.iter().find(|filter| name_of(filter) == name) else {
        return vec![Check::bad(
            format!("EnvoyFilter {name}: it is not there"),
            again,
        )];
    };
    let patches = gate
        .pointer("/spec/configPatches")
        .and_then(Value::as_array);
    let ports: BTreeSet<u64> = patches
        .into_iter()
        .flatten()
        .filter_map(|patch| {
            patch
                .pointer("/match/routeConfiguration/portNumber")?
                .as_u64()
        })
        .collect();
    let missing: Vec<String> = workload
        .ports
        .iter()
        .filter(|port| !ports.contains(&u64::from(port.number)))
        .map(|port| port.number.to_string())
        .collect();
    vec![match missing.as_slice() {
        [] => Check::good("the gate has all ports that speak HTTP"),
        missing => Check::perhaps(
            format!("the gate lacks these ports: {}", missing.join(", ")),
            format!("if they are to be intercepted, {again}"),
        ),
    }]
}

/// The rules for connections to the relays: ours must be there, and nobody else's for the same hosts.
fn rules(target: &Target) -> Vec<Check> {
    let rules: &Answer<Vec<Value>> = &target.rules;
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => return vec![Check::unanswered("DestinationRules", error)],
    };
    let is_relay = |rule: &&Value| {
        let host = rule
            .pointer("/spec/host")
            .and_then(Value::as_str)
            .unwrap_or_default();
        host.starts_with(&format!("{}-", names::RELAY))
    };
    let (ours, others): (Vec<&Value>, Vec<&Value>) = rules
        .iter()
        .filter(is_relay)
        .partition(|rule| super::seen::is_ours(rule));
    let mut checks = Vec::new();
    if ours.is_empty() && matches!(&target.plugin, Ok(Some(_))) {
        checks.push(Check::bad(
            format!(
                "{}: no DestinationRule for the relays: a rule of others may take them away",
                target.namespace
            ),
            format!("an operator prepares it again: {}", target.command()),
        ));
    }
    checks.extend(others.iter().map(|rule| {
        Check::bad(
            format!(
                "DestinationRule {}: it is for a relay too, and which one counts is not fixed",
                name_of(rule)
            ),
            format!(
                "kubectl -n {} delete destinationrule {}",
                target.namespace,
                name_of(rule)
            ),
        )
    }));
    checks
}

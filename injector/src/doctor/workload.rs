//! A workload: can it be prepared, is it, and is what was prepared what it needs today?

use std::collections::BTreeSet;

use intercept_kube::pods::{self, Fault, PodError};
use intercept_manifest::istio::{Workload, preparation};
use serde_json::Value;

use super::Check;
use super::snapshot::{Target, name_of, text};
use crate::error::Hint;

pub fn checks(target: &Target) -> Vec<Check> {
    let label = target.label();
    let facts = match target.facts() {
        Ok(facts) => facts,
        Err(reason) => return vec![Check::fail("workload", reason.to_string(), reason.hint())],
    };
    let ports: Vec<u16> = facts
        .workload
        .ports
        .iter()
        .map(|port| port.number)
        .collect();
    let mut checks = pods(target, &ports);
    for reason in &facts.left_out {
        checks.push(Check::warn(
            "port-protocol",
            format!("{label}: {reason}"),
            "requests to that port cannot be intercepted; name it http-…, or set appProtocol: http",
        ));
    }
    let speaking: Vec<String> = ports.iter().map(u16::to_string).collect();
    checks.push(Check::pass(
        "port-protocol",
        format!(
            "{label}: for Istio these ports speak HTTP: {}",
            speaking.join(", ")
        ),
    ));
    checks.extend(plugin(target));
    checks.extend(gate(target, &facts.workload));
    checks.extend(rules(target));
    checks
}

/// What `intercept` would refuse, pod by pod.
fn pods(target: &Target, ports: &[u16]) -> Vec<Check> {
    let mut found = Vec::new();
    let mut count = 0;
    for pod in target.own_pods() {
        count += 1;
        let faults = pods::faults(pod, ports).into_iter();
        found.extend(faults.map(|fault| PodError {
            namespace: target.namespace.clone(),
            pod: pods::name_of(pod).to_owned(),
            fault,
        }));
    }
    let label = target.label();
    let all_well: [(&'static str, String); 4] = [
        (
            "sidecar",
            format!("{label}: its {count} pods have sidecars"),
        ),
        (
            "istio-version",
            format!("{label}: its sidecars are of Istio 1.29 or later"),
        ),
        (
            "port-bypass",
            format!("{label}: no port that speaks HTTP passes the sidecar by"),
        ),
        (
            "probes",
            format!("{label}: the kubelet's probes do not pass through the sidecar"),
        ),
    ];
    let mut checks = Vec::new();
    for (id, well) in all_well {
        let mut errors = found.iter().filter(|error| id_of(&error.fault) == id);
        checks.push(match errors.next() {
            None => Check::pass(id, well),
            // Header conditions work all the same.
            Some(error) if matches!(error.fault, Fault::Probed(_)) => {
                Check::warn(id, error.to_string(), error.hint())
            }
            Some(error) => Check::fail(id, error.to_string(), error.hint()),
        });
    }
    checks
}

fn id_of(fault: &Fault) -> &'static str {
    match fault {
        Fault::HostNetwork | Fault::NoSidecar => "sidecar",
        Fault::OldIstio(..) => "istio-version",
        Fault::PassesBy(..) => "port-bypass",
        Fault::Probed(_) => "probes",
    }
}

/// By the same reading as every other command's.
fn plugin(target: &Target) -> Vec<Check> {
    let again = format!("an operator prepares it again: {}", target.command());
    let plugin = match &target.plugin {
        Ok(Some(plugin)) => plugin,
        Ok(None) => {
            return vec![Check::fail(
                "prepared",
                format!("{}: it is not prepared for intercepts", target.label()),
                format!("an operator prepares it: {}", target.command()),
            )];
        }
        Err(error) => return vec![Check::unanswered("prepared", "WasmPlugin", error)],
    };
    match preparation::read(plugin) {
        Ok(Some(_)) => vec![Check::pass(
            "prepared",
            format!("{}: it is prepared", target.label()),
        )],
        Ok(None) => vec![Check::fail(
            "schema",
            format!("{}: another version prepared it", target.label()),
            again,
        )],
        Err(error) => vec![Check::fail("prepared", error.to_string(), again)],
    }
}

/// The ports of the gate against those that the workload has today.
fn gate(target: &Target, workload: &Workload) -> Vec<Check> {
    if !matches!(&target.plugin, Ok(Some(_))) {
        return Vec::new();
    }
    let name = workload.object_name();
    let filters = match &target.filters {
        Ok(filters) => filters,
        Err(error) => return vec![Check::unanswered("gate", "EnvoyFilters", error)],
    };
    let again = format!("an operator prepares it again: {}", target.command());
    let Some(gate) = filters.iter().find(|filter| name_of(filter) == name) else {
        return vec![Check::fail(
            "gate",
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
        [] => Check::pass("gate", "the gate has all ports that speak HTTP"),
        missing => Check::warn(
            "gate",
            format!("the gate lacks these ports: {}", missing.join(", ")),
            format!(
                "if they are to be intercepted, an operator prepares it again: {}",
                target.command_for_all_ports()
            ),
        ),
    }]
}

/// The rules for connections to the relays: ours must be there for each, and no other for the same hosts.
fn rules(target: &Target) -> Vec<Check> {
    const ID: &str = "relay-rule";
    let rules = match &target.rules {
        Ok(rules) => rules,
        Err(error) => return vec![Check::unanswered(ID, "DestinationRules", error)],
    };
    let Some(prepared) = target.prepared() else {
        return Vec::new();
    };
    let mesh = prepared.mesh;
    let hosts: Vec<String> = (0..mesh.relay_replicas)
        .map(|relay| mesh.relay_host(relay))
        .collect();
    let of_host = |host: &String| -> Vec<&Value> {
        let is_for = |rule: &&Value| text(rule, "/spec/host") == host;
        rules.iter().filter(is_for).collect()
    };
    let lacking = hosts
        .iter()
        .find(|host| !of_host(host).into_iter().any(super::snapshot::is_ours));
    let mut checks = Vec::new();
    if let Some(host) = lacking {
        checks.push(Check::fail(
            ID,
            format!("{}: no DestinationRule of ours for {host}: a rule of others, `*.svc.{}` for instance, may take the relay away", target.namespace, mesh.cluster_domain),
            format!("an operator prepares it again: {}", target.command()),
        ));
    }
    // Of several for one host, Istio takes one that selects the pods before one that does not, else the oldest.
    let others = hosts
        .iter()
        .flat_map(of_host)
        .filter(|rule| !super::snapshot::is_ours(rule));
    checks.extend(others.map(|rule| {
        Check::fail(
            ID,
            format!(
                "DestinationRule {}: it is for a relay as well, and may win over ours",
                name_of(rule)
            ),
            format!(
                "kubectl -n {} delete destinationrule {}",
                target.namespace,
                name_of(rule)
            ),
        )
    }));
    if checks.is_empty() {
        checks.push(Check::pass(
            ID,
            "our rules for connections to the relays are the ones that count",
        ));
    }
    checks
}

//! Prepares workloads again after an upgrade: for the filter, the relays and the domain of now, with the ports and limits that they have.
//!
//! Another filter changes the plugin alone, other relays change clusters: proxies take both without draining anything, so it is done at once. A changed gate is a changed listener,
//! which cuts streams that are open 45 s later: when that may happen, the operator says.

use intercept_core::Limits;
use serde_json::Value;

use super::OURS;
use super::apply::{self, Changed};
use crate::cluster::{Cluster, ClusterError, kind};
use crate::curl::quote;
use crate::hint::Result;
use crate::manifest::istio::install::ClusterInstall;
use crate::manifest::istio::{Mesh, Module, Object, Plugin, names, workload_objects};
use crate::mesh::{plugin, prepared};

/// A workload that was prepared for something else than there is now.
#[derive(Debug)]
pub struct Stale {
    /// Its namespace.
    pub namespace: String,
    /// `Deployment/orders`.
    pub workload: String,
    /// What intercepts may do there now; none where that cannot be read.
    limits: Option<Limits>,
    /// What it should have; empty where that cannot be told from what it has.
    objects: Vec<Object>,
    /// Only an operator can say when, or how.
    pub waits: Option<&'static str>,
}

/// All over the cluster. `module` is the filter of now; `None`: not known, so nothing is said about filters.
pub async fn find(
    cluster: &Cluster,
    install: &ClusterInstall,
    module: Option<&Module>,
) -> Result<Vec<Stale>, ClusterError> {
    let ours = |kind| cluster.list(kind, None, Some(OURS));
    let (plugins, gates) =
        match tokio::try_join!(ours(&kind::WASM_PLUGIN), ours(&kind::ENVOY_FILTER)) {
            // Whoever may not look everywhere prepares workloads one by one.
            Err(error) if error.is_forbidden() => return Ok(Vec::new()),
            lists => lists?,
        };
    let is_of = |gate: &&Value, plugin: &Value| {
        let same = |key: &str| gate["metadata"][key] == plugin["metadata"][key];
        same("name") && same("namespace")
    };
    let stale = plugins.iter().filter_map(|plugin| {
        let gate = gates.iter().find(|gate| is_of(gate, plugin));
        judge(plugin, gate, &install.mesh, module)
    });
    Ok(stale.collect())
}

fn judge(
    plugin: &Value,
    gate: Option<&Value>,
    mesh: &Mesh,
    module: Option<&Module>,
) -> Option<Stale> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &plugin["metadata"];
    let stale = |objects, waits| {
        Some(Stale {
            namespace: text(&metadata["namespace"]),
            workload: text(&metadata["annotations"][names::WORKLOAD]),
            limits: limits(plugin),
            objects,
            waits,
        })
    };
    let Some((gate, objects)) =
        gate.and_then(|gate| Some((gate, render(plugin, gate, mesh, module)?)))
    else {
        return stale(
            Vec::new(),
            Some("what it has cannot be read by this version"),
        );
    };
    let wanted = |kind: &str| {
        let object = objects.iter().rev().find(|object| object.kind() == kind);
        object.map_or(&Value::Null, Object::value)
    };
    let (new_plugin, new_gate) = (wanted("WasmPlugin"), wanted("EnvoyFilter"));
    let differs = |key: &str| plugin["spec"][key] != new_plugin["spec"][key];
    let is_other_filter = differs("url")
        || differs("sha256")
        || plugin["spec"]["pluginConfig"]["version"]
            != new_plugin["spec"]["pluginConfig"]["version"];
    if !is_other_filter && gate["spec"] == new_gate["spec"] {
        return None;
    }
    let waits = if routes(gate) != routes(new_gate) {
        Some("its gate changes, so open connections are drained once")
    } else if differs("url") {
        Some("its filter is fetched from elsewhere")
    } else {
        None
    };
    stale(objects, waits)
}

fn render(
    plugin: &Value,
    gate: &Value,
    mesh: &Mesh,
    module: Option<&Module>,
) -> Option<Vec<Object>> {
    let workload = prepared::read(gate).ok()?.workload;
    let limits = limits(plugin)?;
    let text = |key: &str| plugin["spec"][key].as_str().unwrap_or_default().to_owned();
    let as_it_is = || Module {
        url: text("url"),
        sha256: text("sha256"),
    };
    let module = module.cloned().unwrap_or_else(as_it_is);
    workload_objects(mesh, &workload, &Plugin { module, limits }).ok()
}

fn limits(plugin: &Value) -> Option<Limits> {
    Some(plugin::Plugin::read(plugin).ok()?.document.limits)
}

/// What of a gate is part of a listener: all but its clusters.
fn routes(gate: &Value) -> (Vec<&Value>, &Value, &Value) {
    let patches = gate["spec"]["configPatches"].as_array();
    let patches = patches.into_iter().flatten();
    let routes = patches
        .filter(|patch| patch["applyTo"] != "CLUSTER")
        .collect();
    (
        routes,
        &gate["spec"]["priority"],
        &gate["spec"]["workloadSelector"],
    )
}

impl Stale {
    /// The command that prepares it, with the limits that it has.
    pub fn command(&self) -> String {
        let mut command = format!(
            "injector install -n {} --workload {}",
            quote(&self.namespace),
            quote(&self.workload)
        );
        let limits = self.limits.clone().unwrap_or_default();
        if limits.allow_all {
            command.push_str(" --allow-all");
        }
        if limits.max_lease_seconds != Limits::default().max_lease_seconds {
            command.push_str(&format!(" --max-lease {}s", limits.max_lease_seconds));
        }
        for name in limits.header_names.iter().flatten() {
            command.push_str(&format!(" --header-name {}", quote(name)));
        }
        command
    }

    /// Can this version render what it should have?
    pub fn can_be_prepared(&self) -> bool {
        !self.objects.is_empty()
    }

    /// Prepares it; rules for relays that are no longer there are taken away.
    pub async fn prepare(&self, cluster: &Cluster, take_over: bool) -> Result<Vec<Changed>> {
        let mut changed = apply::apply(cluster, &self.objects, take_over).await?;
        let rules = [&kind::DESTINATION_RULE];
        changed.extend(apply::prune(cluster, &self.namespace, &rules, &self.objects).await?);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::istio::example;

    fn prepared() -> (Value, Value) {
        let objects = workload_objects(
            &example::install().mesh,
            &example::workload(),
            &example::plugin(),
        )
        .unwrap();
        let find = |kind: &str| {
            objects
                .iter()
                .find(|object| object.kind() == kind)
                .unwrap()
                .value()
                .clone()
        };
        (find("WasmPlugin"), find("EnvoyFilter"))
    }

    fn judged(
        change: impl FnOnce(&mut Value, &mut Value, &mut Mesh, &mut Module),
    ) -> Option<Option<&'static str>> {
        let (mut plugin, mut gate) = prepared();
        let (mut mesh, mut module) = (example::install().mesh, example::plugin().module);
        change(&mut plugin, &mut gate, &mut mesh, &mut module);
        judge(&plugin, Some(&gate), &mesh, Some(&module)).map(|stale| stale.waits)
    }

    #[test]
    fn what_is_as_it_should_be_is_not_prepared_again() {
        assert_eq!(judged(|_, _, _, _| {}), None);
        // Intercepts are not the installer's business.
        assert_eq!(
            judged(
                |plugin, _, _, _| plugin["spec"]["pluginConfig"]["intercepts"] =
                    json!({"bob": example::entry()})
            ),
            None
        );
    }

    #[test]
    fn another_filter_and_other_relays_drain_nothing_and_are_done_at_once() {
        assert_eq!(
            judged(|_, _, _, module| module.sha256 = "1".repeat(64)),
            Some(None)
        );
        assert_eq!(judged(|_, _, mesh, _| mesh.relay_replicas = 3), Some(None));
        assert_eq!(judged(|_, _, mesh, _| mesh.relay_replicas = 1), Some(None));
    }

    #[test]
    fn a_changed_gate_and_a_filter_from_elsewhere_wait_for_an_operator() {
        let retries = "/spec/configPatches/0/patch/value/route/retry_policy/retry_on";
        let changed = judged(|_, gate, _, _| *gate.pointer_mut(retries).unwrap() = json!("5xx"));
        assert!(changed.unwrap().unwrap().contains("drained once"));
        let elsewhere =
            judged(|plugin, _, _, _| plugin["spec"]["url"] = json!("oci://elsewhere/filter"));
        assert!(elsewhere.unwrap().unwrap().contains("from elsewhere"));
        let unreadable = judged(|_, gate, _, _| gate["metadata"]["annotations"] = json!({}));
        assert!(unreadable.unwrap().unwrap().contains("cannot be read"));
    }

    #[test]
    fn the_command_for_whoever_waits_keeps_the_limits() {
        let (mut plugin, gate) = prepared();
        let limits = json!({"allow_all": true, "max_lease_seconds": 7200, "header_names": ["coder", "baggage"]});
        plugin["spec"]["pluginConfig"]["limits"] = limits;
        plugin["spec"]["url"] = json!("oci://elsewhere/filter");
        let module = example::plugin().module;
        let stale = judge(
            &plugin,
            Some(&gate),
            &example::install().mesh,
            Some(&module),
        );
        let command = stale.expect("stale").command();
        let flags = " --allow-all --max-lease 7200s --header-name coder --header-name baggage";
        assert!(command.ends_with(flags), "{command}");
        let parsed = crate::flags::max_lease("7200s").unwrap();
        assert_eq!(parsed.as_secs(), 7200);
    }
}

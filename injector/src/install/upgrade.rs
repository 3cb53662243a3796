//! Prepares workloads again after an upgrade: for the filter, the relays and the domain of now, with the ports and limits that they have.
//!
//! Another filter changes the plugin alone, other relays its annotation and clusters: proxies take both without draining anything, so it is done at once. A changed gate is a changed listener,
//! which cuts streams that are open 45 s later: when that may happen, the operator says.

use intercept_kube::{Cluster, ClusterError, kind};
use intercept_manifest::istio::install::ClusterInstall;
use intercept_manifest::istio::{
    Mesh, Module, Object, Plugin, names, preparation, workload_objects,
};
use serde_json::Value;

use super::OURS;
use super::apply::{self, Changed, RULES};
use crate::error::Result;
use crate::install_args::{self, InstallArgs};

/// A workload that was prepared for something else than there is now.
#[derive(Debug)]
pub struct Stale {
    /// Its namespace.
    pub namespace: String,
    /// `Deployment/orders`.
    pub workload: String,
    /// What the command that prepares it says again.
    kept: InstallArgs,
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
            // A user who may not look everywhere prepares workloads one by one.
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
            kept: kept(plugin, mesh, module),
            objects,
            waits,
        })
    };
    let Some(objects) = render(plugin, mesh, module) else {
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
    let gate = gate.unwrap_or(&Value::Null);
    let preparation =
        |plugin: &Value| plugin["metadata"]["annotations"][names::PREPARATION].clone();
    let differs = |key: &str| plugin["spec"][key] != new_plugin["spec"][key];
    let is_other_plugin =
        differs("url") || differs("sha256") || preparation(plugin) != preparation(new_plugin);
    if !is_other_plugin && gate["spec"] == new_gate["spec"] {
        return None;
    }
    let waits = if routes(gate) != routes(new_gate) {
        Some("its gate changes, so open connections are drained once")
    } else if source(plugin) != source(new_plugin) {
        Some("its filter is fetched from elsewhere")
    } else {
        None
    };
    stale(objects, waits)
}

/// Its own ports and limits; the filter and the relays of now.
fn kept(plugin: &Value, mesh: &Mesh, module: Option<&Module>) -> InstallArgs {
    let own = InstallArgs::of(plugin, &mesh.namespace);
    let module = match module {
        Some(module) => install_args::elsewhere(module.clone()),
        None => own.module.clone(),
    };
    InstallArgs {
        relay_namespace: mesh.namespace.clone(),
        module,
        ..own
    }
}

fn render(plugin: &Value, mesh: &Mesh, module: Option<&Module>) -> Option<Vec<Object>> {
    let read = preparation::read(plugin).ok()??;
    let text = |key: &str| plugin["spec"][key].as_str().unwrap_or_default().to_owned();
    let as_it_is = || Module {
        url: text("url"),
        sha256: text("sha256"),
    };
    let module = module.cloned().unwrap_or_else(as_it_is);
    let limits = read.limits;
    let plugin = Plugin { module, limits };
    workload_objects(mesh, &read.preparation.workload, &plugin).ok()
}

/// Where a plugin's filter is fetched; an image's digest says which one, not where.
fn source(plugin: &Value) -> &str {
    let url = plugin["spec"]["url"].as_str().unwrap_or_default();
    url.split_once("@sha256:").map_or(url, |(image, _)| image)
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

/// `Deployment/orders in shop`.
impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} in {}", self.workload, self.namespace)
    }
}

impl Stale {
    /// The command that prepares it, with the ports and limits that it has.
    pub fn command(&self) -> String {
        install_args::prepare(&self.namespace, &self.workload, &self.kept)
    }

    /// Can this version render what it should have?
    pub fn can_be_prepared(&self) -> bool {
        !self.objects.is_empty()
    }

    /// What it should have; none where this version cannot render that.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Prepares it; rules for relays that are no longer there are taken away.
    pub async fn prepare(&self, cluster: &Cluster, take_over: bool) -> Result<Vec<Changed>> {
        let mut changed = apply::apply(cluster, &self.objects, take_over).await?;
        changed.extend(apply::prune(cluster, Some(&self.namespace), RULES, &self.objects).await?);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::example;
    use serde_json::json;

    use super::*;

    fn prepared() -> (Value, Value) {
        let objects = workload_objects(
            &example::install().mesh,
            &example::workload(),
            &example::plugin(),
        )
        .unwrap();
        let find = |kind: &str| Object::of_kind(&objects, kind).unwrap().value().clone();
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
            judged(|plugin, _, _, _| plugin["spec"]["pluginConfig"]["intercepts"] = json!("{}")),
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
        // Another image of the same registry is another filter only.
        let judged_image = |image: &str| {
            let image = json!(format!("oci://{image}@sha256:{}", "1".repeat(64)));
            judged(|plugin, _, _, module| {
                plugin["spec"]["url"] = image;
                module.url = format!("oci://r/filter@sha256:{}", module.sha256);
            })
        };
        assert_eq!(judged_image("r/filter"), Some(None));
        assert!(judged_image("elsewhere/filter").unwrap().is_some());
        let unreadable =
            judged(|plugin, _, _, _| plugin["spec"]["pluginConfig"]["version"] = json!(1));
        assert!(unreadable.unwrap().unwrap().contains("cannot be read"));
    }

    #[test]
    fn the_command_for_whoever_waits_keeps_ports_and_limits_and_takes_what_there_is_now() {
        let (mut plugin, gate) = prepared();
        let limits = json!({"allow_all": true, "max_lease_seconds": 7200, "header_names": ["coder", "baggage"]});
        plugin["spec"]["pluginConfig"]["limits"] = limits;
        plugin["spec"]["url"] = json!("https://elsewhere/filter.wasm");
        let mut mesh = example::install().mesh;
        mesh.namespace = "relays".to_owned();
        let command = |module: Option<&Module>| {
            let stale = judge(&plugin, Some(&gate), &mesh, module);
            stale.expect("stale").command()
        };
        let (start, kept) = (
            "injector install -n shop --workload Deployment/orders --relay-namespace relays",
            " --port 8080 --allow-all --max-lease 7200s --header-name coder --header-name baggage",
        );
        let mut module = example::plugin().module;
        assert_eq!(command(Some(&module)), format!("{start}{kept}"));
        module.url = format!("oci://r/filter@sha256:{}", module.sha256);
        let url = format!(" --module-url {}", module.url);
        assert_eq!(command(Some(&module)), format!("{start}{url}{kept}"));
        let url = " --module-url https://elsewhere/filter.wasm --module filter.wasm";
        assert_eq!(command(None), format!("{start}{url}{kept}"));
    }
}

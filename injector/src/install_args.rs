//! The `injector install` line that is printed for an operator to run: for developers, the doctor and upgrades alike. What an earlier run said and the next one does not remember
//! stands in it, so that pasting it changes nothing but what it is for. Pure.

use intercept_core::Limits;
use intercept_manifest::istio::{Module, names, preparation};
use serde_json::Value;

use crate::shell::quote;

/// What must be said again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallArgs {
    /// Where relays and module server are.
    pub relay_namespace: String,
    /// The filter, where it is not our own module server's.
    pub module: Option<Module>,
    /// The container ports; none: all that speak HTTP.
    pub ports: Vec<u16>,
    /// What intercepts may do.
    pub limits: Limits,
}

impl Default for InstallArgs {
    fn default() -> Self {
        Self {
            relay_namespace: names::SYSTEM_NAMESPACE.to_owned(),
            module: None,
            ports: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl InstallArgs {
    /// What a line says that is for no workload in particular: where the relays are.
    pub fn beside(relay_namespace: &str) -> Self {
        Self {
            relay_namespace: relay_namespace.to_owned(),
            ..Self::default()
        }
    }

    /// What stands in a workload's WasmPlugin, as far as it can be read; `relay_namespace` where it does not say.
    pub fn of(plugin: &Value, relay_namespace: &str) -> Self {
        let spec = &plugin["spec"];
        let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
        let module = Module {
            url: text("url"),
            sha256: text("sha256"),
        };
        let read = preparation::read(plugin).ok().flatten();
        let prepared = read.map(|read| read.preparation);
        Self {
            relay_namespace: prepared.as_ref().map_or_else(
                || relay_namespace.to_owned(),
                |prepared| prepared.mesh.namespace.clone(),
            ),
            module: elsewhere(module),
            ports: prepared.map_or_else(Vec::new, |prepared| {
                let ports = prepared.workload.ports.iter();
                ports.map(|port| port.number).collect()
            }),
            // Also those of another schema version, where they can be read all the same.
            limits: serde_json::from_value(spec["pluginConfig"]["limits"].clone())
                .unwrap_or_default(),
        }
    }

    /// The flags, with a blank before each.
    pub fn flags(&self) -> String {
        let mut flags = String::new();
        if self.relay_namespace != names::SYSTEM_NAMESPACE {
            flags.push_str(&format!(
                " --relay-namespace {}",
                quote(&self.relay_namespace)
            ));
        }
        flags.push_str(&self.module.as_ref().map_or_else(String::new, fetched_from));
        for port in &self.ports {
            flags.push_str(&format!(" --port {port}"));
        }
        if self.limits.allow_all {
            flags.push_str(" --allow-all");
        }
        if self.limits.max_lease_seconds != Limits::default().max_lease_seconds {
            flags.push_str(&format!(" --max-lease {}s", self.limits.max_lease_seconds));
        }
        for name in self.limits.header_names.iter().flatten() {
            flags.push_str(&format!(" --header-name {}", quote(name)));
        }
        flags
    }
}

/// The command that prepares a workload, `deployment/orders`.
pub fn prepare(namespace: &str, workload: &str, kept: &InstallArgs) -> String {
    format!(
        "injector install -n {} --workload {}{}",
        quote(namespace),
        quote(workload),
        kept.flags()
    )
}

/// The same with nothing said again.
pub fn usual(namespace: &str, workload: &str) -> String {
    prepare(namespace, workload, &InstallArgs::default())
}

/// The module, unless our own module server hands it out.
pub fn elsewhere(module: Module) -> Option<Module> {
    let ours = format!("http://{}.", names::MODULE);
    (!module.url.is_empty() && !module.url.starts_with(&ours)).then_some(module)
}

/// An image's digest may stand beside its URL in a WasmPlugin that was written by hand; the flag has it in the URL.
fn fetched_from(module: &Module) -> String {
    let Module { url, sha256 } = module;
    if url.starts_with("http://") || url.starts_with("https://") {
        return format!(" --module-url {} --module filter.wasm", quote(url));
    }
    // Without a scheme Istio takes it for an image.
    let image = url.strip_prefix("oci://").unwrap_or(url);
    let image = match image.contains("@sha256:") {
        true => image.to_owned(),
        false => format!("{image}@sha256:{sha256}"),
    };
    format!(" --module-url {}", quote(&format!("oci://{image}")))
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::{Object, example, workload_objects};
    use serde_json::json;

    use super::*;

    /// The example's WasmPlugin.
    fn prepared(relay_namespace: &str) -> Value {
        let mut mesh = example::install().mesh;
        mesh.namespace = relay_namespace.to_owned();
        let objects = workload_objects(&mesh, &example::workload(), &example::plugin()).unwrap();
        Object::of_kind(&objects, "WasmPlugin")
            .unwrap()
            .value()
            .clone()
    }

    #[test]
    fn a_line_says_again_what_was_said_once() {
        let mut plugin = prepared("relays");
        plugin["spec"]["pluginConfig"]["limits"] = json!({"allow_all": true, "max_lease_seconds": 7200, "header_names": ["coder", "baggage"]});
        assert_eq!(
            prepare(
                "shop",
                "deployment/orders",
                &InstallArgs::of(&plugin, "else")
            ),
            "injector install -n shop --workload deployment/orders --relay-namespace relays --port 8080 \
             --allow-all --max-lease 7200s --header-name coder --header-name baggage"
        );
        assert_eq!(
            crate::flags::max_lease("7200s").unwrap().as_secs(),
            7200,
            "as the flag reads it"
        );
    }

    #[test]
    fn what_is_as_usual_is_not_said_and_what_cannot_be_read_neither() {
        let mut plugin = prepared(names::SYSTEM_NAMESPACE);
        plugin["metadata"]["annotations"] = json!({});
        let flags = |plugin: &Value| InstallArgs::of(plugin, names::SYSTEM_NAMESPACE).flags();
        assert_eq!(flags(&plugin), "");
        assert_eq!(flags(&Value::Null), "");
        assert_eq!(InstallArgs::default().flags(), "");
        assert_eq!(
            InstallArgs::of(&plugin, "relays").flags(),
            " --relay-namespace relays"
        );
        // Limits of a version that this build does not write.
        plugin["spec"]["pluginConfig"] = json!({"version": 3, "limits": {"allow_all": true}});
        assert_eq!(flags(&plugin), " --allow-all");
    }

    #[test]
    fn a_filter_from_elsewhere_stays_where_it_is() {
        let flags = |url: &str| {
            let mut plugin = prepared(names::SYSTEM_NAMESPACE);
            plugin["metadata"]["annotations"] = json!({});
            plugin["spec"]["url"] = json!(url);
            plugin["spec"]["sha256"] = json!("ab".repeat(32));
            InstallArgs::of(&plugin, names::SYSTEM_NAMESPACE).flags()
        };
        assert_eq!(
            flags("https://files.example.com/filter.wasm"),
            " --module-url https://files.example.com/filter.wasm --module filter.wasm"
        );
        let pinned = format!(" --module-url oci://r/f:1@sha256:{}", "ab".repeat(32));
        for url in [
            "oci://r/f:1",
            "r/f:1",
            &format!("oci://r/f:1@sha256:{}", "ab".repeat(32)),
        ] {
            assert_eq!(flags(url), pinned);
        }
    }
}

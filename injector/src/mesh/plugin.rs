//! A workload's WasmPlugin as it is read: its limits and its intercepts, each entry by itself, as the filter reads them. Pure.

use intercept_core::{Document, Intercept, Limits, SCHEMA_VERSION};
use serde_json::{Map, Value};
use intercept_manifest::istio::names;

/// A WasmPlugin of ours, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Which version of the object this is.
    pub resource_version: String,
    /// Limits and intercepts. What the filter would leave out is left out.
    pub document: Document,
    /// The map of intercepts as it stands there.
    pub entries: Value,
    /// What the filter is given, as it stands there.
    pub configuration: Value,
}

/// Why a WasmPlugin cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlugin {
    /// Not one that the installer made.
    #[error("WasmPlugin {0}: it was not made by `injector install`")]
    NotOurs(String),
    /// Installed by another version of this program.
    #[error(
        "WasmPlugin {name}: spec.pluginConfig.version: expected {SCHEMA_VERSION}, found {found}"
    )]
    Version {
        /// Which one.
        name: String,
        /// Its schema version.
        found: String,
    },
    /// What the operator allows cannot be read.
    #[error("WasmPlugin {name}: spec.pluginConfig.limits: {reason}")]
    Limits {
        /// Which one.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl Plugin {
    /// Reads one.
    pub fn read(object: &Value) -> Result<Self, InvalidPlugin> {
        let text = |pointer| {
            let text = object.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let name = text("/metadata/name");
        if !is_ours(object) {
            return Err(InvalidPlugin::NotOurs(name));
        }
        let config = &object["spec"]["pluginConfig"];
        if config["version"].as_u64() != Some(SCHEMA_VERSION) {
            let found = config["version"].to_string();
            return Err(InvalidPlugin::Version { name, found });
        }
        let limits = match &config["limits"] {
            Value::Null => Limits::default(),
            limits => serde_json::from_value(limits.clone()).map_err(|error| {
                let (name, reason) = (name.clone(), error.to_string());
                InvalidPlugin::Limits { name, reason }
            })?,
        };
        let entries = &config["intercepts"];
        Ok(Self {
            name,
            namespace: text("/metadata/namespace"),
            resource_version: text("/metadata/resourceVersion"),
            document: Document {
                version: SCHEMA_VERSION,
                limits,
                intercepts: entries
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(name, entry)| Some((name.clone(), read_entry(entry)?)))
                    .collect(),
            },
            entries: entries.clone(),
            configuration: config.clone(),
        })
    }

    /// The entry of this name as it stands there.
    pub fn entry(&self, name: &str) -> Option<&Value> {
        self.map()?.get(name)
    }

    /// Whose lease has been over for `after` seconds. `now` in seconds since the epoch.
    pub fn left_over(&self, now: u64, after: u64) -> Vec<String> {
        let is_over = |intercept: &&Intercept| intercept.expires.saturating_add(after) < now;
        let intercepts = self.document.intercepts.iter();
        intercepts
            .filter(|(_, intercept)| is_over(intercept))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn map(&self) -> Option<&Map<String, Value>> {
        self.entries.as_object()
    }
}

/// Does the label say that the installer made it?
pub fn is_ours(object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    labels[names::MANAGED_BY].as_str() == Some(names::MANAGER)
}

fn read_entry(entry: &Value) -> Option<Intercept> {
    serde_json::from_value(entry.clone()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use intercept_manifest::istio::{example, workload_objects};

    use super::*;

    fn installed() -> Value {
        let (mesh, workload) = (example::install().mesh, example::workload());
        let objects = workload_objects(&mesh, &workload, &example::plugin()).unwrap();
        let plugin = objects.iter().find(|object| object.kind() == "WasmPlugin");
        plugin.unwrap().value().clone()
    }

    #[test]
    fn what_the_installer_wrote_is_read_with_its_limits_and_no_intercepts() {
        let plugin = Plugin::read(&installed()).unwrap();
        assert_eq!(plugin.document.limits, example::plugin().limits);
        assert_eq!(plugin.document.intercepts.len(), 0);
        assert_eq!(
            (plugin.name.as_str(), plugin.namespace.as_str()),
            ("injector-deployment-orders", "shop")
        );
    }

    #[test]
    fn a_bad_entry_takes_only_itself_out() {
        let mut object = installed();
        object["spec"]["pluginConfig"]["intercepts"] =
            json!({"orders-bob": example::entry(), "bad": {"port": "x"}});
        let plugin = Plugin::read(&object).unwrap();
        assert_eq!(
            plugin.document.intercepts.into_iter().collect::<Vec<_>>(),
            [("orders-bob".to_owned(), example::entry())]
        );
        let plugin = Plugin::read(&object).unwrap();
        assert!(plugin.entry("bad").is_some());
        // Whoever asks the filter's own code is told of it.
        let (config, rejected) = intercept_core::parse(plugin.configuration.to_string().as_bytes());
        assert_eq!(config.intercepts.len(), 1);
        assert_eq!(rejected[0].intercept.as_deref(), Some("bad"));
    }

    #[test]
    fn another_schema_is_refused_before_anything_is_written() {
        let mut object = installed();
        object["spec"]["pluginConfig"]["version"] = json!(2);
        let error = Plugin::read(&object).unwrap_err().to_string();
        assert!(error.ends_with("expected 1, found 2"), "{error}");
    }

    #[test]
    fn somebody_elses_plugin_is_not_touched() {
        let mut object = installed();
        object["metadata"]["labels"] = json!({});
        assert!(matches!(
            Plugin::read(&object),
            Err(InvalidPlugin::NotOurs(_))
        ));
    }

    #[test]
    fn an_entry_is_left_over_so_long_after_its_lease() {
        let mut object = installed();
        let entry = example::entry();
        object["spec"]["pluginConfig"]["intercepts"] = json!({"orders-bob": entry});
        let plugin = Plugin::read(&object).unwrap();
        assert!(plugin.left_over(entry.expires + 600, 600).is_empty());
        assert_eq!(plugin.left_over(entry.expires + 601, 600), ["orders-bob"]);
    }
}

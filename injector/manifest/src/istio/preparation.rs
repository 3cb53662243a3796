//! A prepared workload as its WasmPlugin records it: what the operator said is an annotation, written by the installer and read back here.

use intercept_core::{Intercept, Limits, TEXT_SCHEMA_VERSION, parse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::facts::{Mesh, Workload};
use super::kind::Kind;
use super::names;

/// What the operator said of a workload, besides its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// Where the relays are.
    pub mesh: Mesh,
    /// The workload, with the ports that can be intercepted.
    pub workload: Workload,
}

/// The WasmPlugin of a prepared workload, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlledPlugin {
    /// Its name.
    pub name: String,
    /// Its uid: an object of the same name made later is another one.
    pub uid: String,
    /// Which version of the object this is.
    pub resource_version: String,
    /// What the operator said.
    pub preparation: Preparation,
    /// What the operator allows.
    pub limits: Limits,
    /// `spec.pluginConfig.intercepts`; `None` where it has not been written, or is no text.
    pub text: Option<String>,
}

impl ControlledPlugin {
    /// What the filter is given.
    pub fn configuration(&self) -> Value {
        let text = self.text.as_deref().unwrap_or("{}");
        json!({"version": TEXT_SCHEMA_VERSION, "limits": self.limits, "intercepts": text})
    }

    /// Its intercepts, as the filter reads them.
    pub fn entries(&self) -> Vec<(String, Intercept)> {
        let (config, _) = parse(self.configuration().to_string().as_bytes());
        config.intercepts
    }

    /// The patch that changes only the text. Contains the uid, so that applying it does not recreate an object that was deleted meanwhile.
    pub fn patch(&self, text: &str) -> Value {
        let namespace = &self.preparation.workload.namespace;
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {"name": self.name, "namespace": namespace, "uid": self.uid},
            "spec": {"pluginConfig": {"intercepts": text}},
        })
    }
}

/// Kind and name of the workload that an object of ours belongs to.
pub fn workload_of(object: &Value) -> Option<(Kind, &str)> {
    let annotations = object.pointer("/metadata/annotations")?;
    let (kind, name) = annotations
        .get(names::WORKLOAD)?
        .as_str()?
        .split_once('/')?;
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    let kind = kinds.into_iter().find(|known| known.name() == kind)?;
    Some((kind, name))
}

/// Why intercepts of a WasmPlugin cannot be controlled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("WasmPlugin {name}: {what}")]
pub struct InvalidPreparation {
    /// The WasmPlugin.
    pub name: String,
    /// What is wrong.
    pub what: String,
}

/// Reads a WasmPlugin; `None`: it is none whose intercepts the controller writes.
pub fn read(object: &Value) -> Result<Option<ControlledPlugin>, InvalidPreparation> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let owned = |pointer| text(pointer).unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let Some(written) = metadata["annotations"][names::PREPARATION].as_str() else {
        return Ok(None);
    };
    let invalid = |what: String| InvalidPreparation {
        name: owned("/metadata/name"),
        what,
    };
    if metadata["labels"][names::MANAGED_BY] != names::MANAGER {
        return Err(invalid("it was not made by `injector install`".to_owned()));
    }
    let config = &object["spec"]["pluginConfig"];
    if config["version"] != TEXT_SCHEMA_VERSION {
        let found = &config["version"];
        return Err(invalid(format!(
            "spec.pluginConfig.version: expected {TEXT_SCHEMA_VERSION}, found {found}"
        )));
    }
    let preparation: Preparation = serde_json::from_str(written)
        .map_err(|error| invalid(format!("annotation {}: {error}", names::PREPARATION)))?;
    let workload = &preparation.workload;
    if workload.namespace != owned("/metadata/namespace")
        || names::of_workload(workload.kind, &workload.name) != owned("/metadata/name")
    {
        let found = workload.label();
        return Err(invalid(format!(
            "annotation {}: it is of {found}",
            names::PREPARATION
        )));
    }
    let limits = match &config["limits"] {
        Value::Null => Limits::default(),
        limits => serde_json::from_value(limits.clone())
            .map_err(|error| invalid(format!("spec.pluginConfig.limits: {error}")))?,
    };
    Ok(Some(ControlledPlugin {
        name: owned("/metadata/name"),
        uid: owned("/metadata/uid"),
        resource_version: owned("/metadata/resourceVersion"),
        preparation,
        limits,
        text: text("/spec/pluginConfig/intercepts").map(str::to_owned),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::istio::{Object, example, workload_objects};

    fn installed() -> Value {
        let (mesh, workload) = (example::install().mesh, example::workload());
        let objects = workload_objects(&mesh, &workload, &example::plugin()).unwrap();
        let plugin = Object::of_kind(&objects, "WasmPlugin").unwrap();
        plugin.value().clone()
    }

    #[test]
    fn preparation_is_read_as_it_was_written() {
        let read = read(&installed()).unwrap().unwrap();
        assert_eq!(read.preparation.workload, example::workload());
        assert_eq!(read.preparation.mesh, example::install().mesh);
        assert_eq!((read.limits, read.text), (example::plugin().limits, None));
    }

    #[test]
    fn plugin_of_old_protocol_is_ignored() {
        let mut plugin = installed();
        plugin["metadata"]["annotations"] = json!({names::WORKLOAD: "Deployment/orders"});
        assert_eq!(read(&plugin), Ok(None));
    }

    #[test]
    fn inconsistent_plugins_are_refused() {
        let cases = [
            (
                "/spec/pluginConfig/version",
                json!(1),
                "spec.pluginConfig.version: expected 2, found 1",
            ),
            (
                "/spec/pluginConfig/limits",
                json!({"allow_all": 1}),
                "spec.pluginConfig.limits: invalid type",
            ),
            (
                "/metadata/namespace",
                json!("payments"),
                "it is of Deployment/orders",
            ),
            (
                "/metadata/name",
                json!("injector-deployment-x"),
                "it is of Deployment/orders",
            ),
            (
                "/metadata/annotations/injector.dev~1preparation",
                json!("{"),
                "EOF",
            ),
            (
                "/metadata/labels",
                json!({}),
                "not made by `injector install`",
            ),
        ];
        for (pointer, value, expected) in cases {
            let mut object = installed();
            *object.pointer_mut(pointer).unwrap() = value;
            let error = read(&object).unwrap_err().to_string();
            assert!(error.contains(expected), "{pointer}: {error}");
        }
    }
}

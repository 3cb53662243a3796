//! The filter's configuration in Envoy: the module, how it runs, and the plugin's own document as text.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::facts::Module;

/// The name by which the listener asks for the filter's configuration.
pub const NAME: &str = "intercept";

/// The type of the configuration.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// The filter with this document.
///
/// FAIL_OPEN: the code cannot trap by lint; should the module be unusable all the same, requests go on to the in-cluster version.
pub fn wasm(module: &Module, document: &impl Serialize) -> Result<Value, serde_json::Error> {
    Ok(json!({
        "@type": TYPE_URL,
        "config": {
            "name": NAME,
            "vm_config": {
                "vm_id": NAME,
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": module.path}},
            },
            "failure_policy": "FAIL_OPEN",
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": serde_json::to_string(document)?,
            },
        },
    }))
}

/// The entry in a listener's `http_filters`: it asks for its configuration in the file at `path`, and again whenever that changes.
///
/// Without a default, a configuration that cannot be loaded when Envoy starts (the module's file is gone) would answer 500 to everything. The default does nothing.
pub fn http_filter(path: &Path) -> Value {
    const NOTHING: &str =
        "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config";
    json!({
        "name": NAME,
        "config_discovery": {
            "config_source": {
                "path_config_source": {"path": path},
                "resource_api_version": "V3",
            },
            "default_config": {"@type": NOTHING},
            "type_urls": [TYPE_URL, NOTHING],
        },
    })
}

/// The plugin's document inside what [`wasm`] made.
pub fn document_text(wasm: &Value) -> Option<&str> {
    wasm.pointer("/config/configuration/value")?.as_str()
}

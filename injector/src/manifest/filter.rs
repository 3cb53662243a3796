//! The filter's configuration in Envoy: the module, how it runs, and the plugin's own document as text.

use intercept_core::Document;
use serde_json::{Value, json};

use super::facts::Module;

/// The name by which the listener asks for the filter's configuration.
pub const NAME: &str = "intercept";

/// The type of the configuration.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// The filter with these intercepts.
///
/// FAIL_OPEN: the code cannot trap by lint; should the module be unusable all the same, requests go on to the in-cluster version.
pub fn wasm(module: &Module, document: &Document) -> Result<Value, serde_json::Error> {
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

/// The plugin's document inside what [`wasm`] made.
pub fn document_text(wasm: &Value) -> Option<&str> {
    wasm.pointer("/config/configuration/value")?.as_str()
}

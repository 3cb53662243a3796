//! The JSON patches (RFC 6902) by which an entry of a WasmPlugin is changed once it is there. Each tests whose entry it is, so that none brings back or takes away another one. Pure.

use intercept_core::Intercept;
use serde_json::{Value, json};

use crate::manifest::istio::names;

/// Where the map of intercepts is in a WasmPlugin.
const INTERCEPTS: &str = "/spec/pluginConfig/intercepts";

/// A key as a part of a JSON pointer (RFC 6901): an entry's name is a DNS label when we write it, but somebody else may have written another one.
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Where an entry is in a WasmPlugin.
pub fn pointer(name: &str) -> String {
    format!("{INTERCEPTS}/{}", escape(name))
}

/// Moves the end of a lease. Fails where the entry is gone or is another tunnel's.
pub fn renew(name: &str, address: &str, expires: u64) -> Value {
    let entry = pointer(name);
    json!([
        {"op": "test", "path": format!("{entry}/address"), "value": address},
        {"op": "replace", "path": format!("{entry}/expires"), "value": expires},
    ])
}

/// Removes the entry, and the map with it where it is the last one: then the plugin is again what the installer wrote.
/// Fails where the entry, or with the last one the map, is not what it was when `all` was read.
pub fn remove(name: &str, entry: &Value, all: &Value) -> Value {
    let is_last = all.as_object().is_some_and(|map| map.len() == 1);
    if is_last {
        return json!([
            {"op": "test", "path": INTERCEPTS, "value": all},
            {"op": "remove", "path": INTERCEPTS},
        ]);
    }
    let place = pointer(name);
    let mut patch = Vec::new();
    // What makes it ours, and whether it was renewed meanwhile. An entry that is not even an object has neither.
    for field in ["address", "expires"] {
        if let Some(value) = entry.get(field) {
            patch.push(json!({"op": "test", "path": format!("{place}/{field}"), "value": value}));
        }
    }
    if patch.is_empty() {
        patch.push(json!({"op": "test", "path": place, "value": entry}));
    }
    patch.push(json!({"op": "remove", "path": place}));
    Value::Array(patch)
}

/// Moves the end of the lease that stands on an intercept's own EnvoyFilter. Fails where it is somebody else's, or has another cluster: that of the same name for another port.
pub fn renew_cluster(cluster: &str, owner: &str, expires: u64) -> Value {
    let annotation = |key| format!("/metadata/annotations/{}", escape(key));
    json!([
        {"op": "test", "path": "/spec/configPatches/0/patch/value/name", "value": cluster},
        {"op": "test", "path": annotation(names::OWNER), "value": owner},
        {"op": "replace", "path": annotation(names::EXPIRES), "value": expires.to_string()},
    ])
}

/// Is this entry, as the API server has it, exactly what was meant to be written?
pub fn is_written(entry: Option<&Value>, intercept: &Intercept) -> bool {
    entry.is_some_and(|entry| {
        serde_json::from_value::<Intercept>(entry.clone()).is_ok_and(|there| there == *intercept)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_escaped_in_a_pointer() {
        assert_eq!(escape("a/b~c~1"), "a~1b~0c~01");
        let document = json!({"spec": {"pluginConfig": {"intercepts": {"a/b~c": 7}}}});
        assert_eq!(document.pointer(&pointer("a/b~c")), Some(&json!(7)));
    }

    #[test]
    fn a_renewal_tests_the_address_first() {
        let patch = renew("bob", "aa", 5);
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/spec/pluginConfig/intercepts/bob/address", "value": "aa"},
                {"op": "replace", "path": "/spec/pluginConfig/intercepts/bob/expires", "value": 5},
            ])
        );
    }

    #[test]
    fn one_of_several_entries_is_removed_by_its_address_and_its_lease() {
        let bob = json!({"address": "aa", "expires": 5});
        let all = json!({"bob": bob, "eve": {}});
        assert_eq!(
            remove("bob", &bob, &all),
            json!([
                {"op": "test", "path": "/spec/pluginConfig/intercepts/bob/address", "value": "aa"},
                {"op": "test", "path": "/spec/pluginConfig/intercepts/bob/expires", "value": 5},
                {"op": "remove", "path": "/spec/pluginConfig/intercepts/bob"},
            ])
        );
    }

    #[test]
    fn the_last_entry_goes_with_its_map_unless_another_one_came() {
        let bob = json!({"address": "aa"});
        let all = json!({"bob": bob});
        assert_eq!(
            remove("bob", &bob, &all),
            json!([
                {"op": "test", "path": "/spec/pluginConfig/intercepts", "value": {"bob": {"address": "aa"}}},
                {"op": "remove", "path": "/spec/pluginConfig/intercepts"},
            ])
        );
    }

    #[test]
    fn an_entry_that_nobody_can_read_is_removed_by_what_it_is() {
        let patch = remove("bad", &json!("text"), &json!({"bad": "text", "eve": {}}));
        assert_eq!(patch[0]["value"], json!("text"));
        assert_eq!(patch[1]["op"], "remove");
    }
}

//! Holds what is rendered against the extensions that Istio's own proxy links: what is not among them works in a plain Envoy and is refused in a mesh.
//!
//! The list is `istio-proxy-extensions.txt`, read from the proxy's build configuration (github.com/istio/proxy, `bazel/extension_config/extensions_build_config.bzl`)
//! of the releases 1.29, 1.30 and 1.31: what all three have.

use std::collections::BTreeSet;

use serde_json::Value;

/// Which extension a configuration's type belongs to; `None` for types that are part of Envoy itself.
const TYPES: [(&str, Option<&str>); 14] = [
    ("envoy.config.cluster.v3.Cluster", None),
    ("envoy.config.core.v3.TypedExtensionConfig", None),
    ("google.protobuf.StringValue", None),
    (
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        Some("envoy.access_loggers.stdout"),
    ),
    (
        "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
        Some("envoy.clusters.aggregate"),
    ),
    (
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        Some("envoy.filters.http.header_mutation"),
    ),
    // Part of the router (source/common/router).
    (
        "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        None,
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        Some("envoy.filters.http.router"),
    ),
    (
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        Some("envoy.filters.http.set_filter_state"),
    ),
    (
        "envoy.extensions.filters.http.wasm.v3.Wasm",
        Some("envoy.filters.http.wasm"),
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        Some("envoy.filters.network.http_connection_manager"),
    ),
    (
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        Some("envoy.retry_priorities.previous_priorities"),
    ),
    (
        "envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig",
        Some("envoy.router.cluster_specifier_plugin.lua"),
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        Some("envoy.upstreams.http.http"),
    ),
];

/// The extensions that a configuration names, by type or by name, and the ones that Istio's proxy does not link among them.
pub fn check(config: &Value) -> (BTreeSet<String>, Vec<String>) {
    let linked: BTreeSet<&str> = include_str!("istio-proxy-extensions.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut named = BTreeSet::new();
    collect(config, &mut named);
    let unlinked = named
        .iter()
        .filter(|name| !linked.contains(name.as_str()))
        .cloned()
        .collect();
    (named, unlinked)
}

fn collect(value: &Value, named: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, named)),
        Value::Object(members) => {
            if let Some(kind) = members.get("type").and_then(Value::as_str) {
                named.insert(format!("envoy.clusters.{}", kind.to_lowercase()));
            }
            members.values().for_each(|member| collect(member, named));
        }
        Value::String(text) => match text.strip_prefix("type.googleapis.com/") {
            Some(name) => named.extend(extension(name)),
            None if text.starts_with("envoy.") => {
                named.insert(text.clone());
            }
            None => {}
        },
        _ => {}
    }
}

/// A type that the table does not know is returned as it is, and no list has it.
fn extension(type_name: &str) -> Option<String> {
    match TYPES.iter().find(|(known, _)| *known == type_name) {
        Some((_, extension)) => extension.map(str::to_owned),
        None => Some(type_name.to_owned()),
    }
}

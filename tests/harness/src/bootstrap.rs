//! Hand-written until the product renders it.

use std::path::Path;

use injector::manifest::facts::{Port, Protocol, Workload};
use injector::manifest::{cluster, envoy};
use serde_json::{Value, json};

const LUA: &str = "function envoy_on_route(h)\n  local name = h:headers():get(\"x-intercept-cluster\")\n  if name ~= nil and h:getCluster(name) ~= nil then return name end\n  return \"APP\"\nend";

fn gate(port: &Port, safe: bool) -> Value {
    let app = format!("inbound|{}||", port.number);
    let mut matches = json!({"prefix": "/", "filter_state": [{"key": "wasm.intercept", "string_match": {"safe_regex": {"regex": ".+"}}}]});
    let mut marks = vec![json!({"name": "x-intercept-unavailable", "present_match": true})];
    let mut on = "connect-failure,refused-stream,reset-before-request,retriable-headers".to_owned();
    if safe {
        matches["headers"] = json!([{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}]);
        marks.push(json!({"name": "x-intercept-lost", "present_match": true}));
        on += ",reset";
    }
    json!({"name": if safe {"intercept-safe"} else {"intercept"}, "match": matches,
        "request_headers_to_remove": ["x-intercept-cluster"],
        "response_headers_to_remove": ["x-intercept-lost"],
        "response_headers_to_add": [{"header": {"key": "x-intercept", "value": "%FILTER_STATE(wasm.intercept:PLAIN)%"}}],
        "route": {"timeout": "0s",
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
            "inline_cluster_specifier_plugin": {"extension": {"name": "envoy.router.cluster_specifier_plugin.lua", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig",
                "default_cluster": app, "source_code": {"inline_string": LUA.replace("APP", &app)}}}},
            "retry_policy": {"retry_on": on, "retriable_headers": marks, "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"},
                "retry_priority": {"name": "envoy.retry_priorities.previous_priorities", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", "update_frequency": 1}}}}})
}

fn listener(port: &Port, dir: &Path) -> Value {
    let app = format!("inbound|{}||", port.number);
    json!({"name": port.name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port.number}},
    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": port.name, "codec_type": "AUTO", "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": true},
        "route_config": {"name": port.name, "virtual_hosts": [{"name": "inbound", "domains": ["*"], "routes": [
            gate(port, true), gate(port, false), {"match": {"prefix": "/"}, "route": {"cluster": app, "timeout": "0s"}}]}]},
        "http_filters": [
            {"name": "intercept", "config_discovery": {"config_source": {"path_config_source": {"path": dir.join("filter.json")}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
             "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]})
}

/// All of it.
pub fn bootstrap(workload: &Workload, dir: &Path) -> Value {
    let mut clusters = Vec::new();
    for port in &workload.ports {
        clusters.push(cluster::app(
            &format!("inbound|{}||", port.number),
            port.app,
            port.protocol,
        ));
        clusters.push(cluster::app(
            &cluster::app_name(port.number),
            port.app,
            port.protocol,
        ));
    }
    for protocol in [Protocol::Http, Protocol::Http2, Protocol::Auto] {
        clusters.push(cluster::relay(
            envoy::relay_name(protocol),
            workload.relay.data,
            protocol,
        ));
    }
    let listeners: Vec<Value> = workload
        .ports
        .iter()
        .map(|port| listener(port, dir))
        .collect();
    json!({"node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"cds_config": {"path_config_source": {"path": dir.join("clusters.json")}, "resource_api_version": "V3"}},
        "static_resources": {"listeners": listeners, "clusters": clusters}})
}

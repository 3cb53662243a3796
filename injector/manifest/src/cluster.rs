//! The clusters behind the gate: the relay, the in-cluster version as a fallback, and one aggregate of the two per intercept.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::circuit::breakers;
use super::facts::Protocol;
use super::gate;

/// How long a cluster stays at least. Envoy crashes when an aggregate cluster goes before a worker has taken it, because its load balancer's factory refers to what the main thread
/// has freed by then (envoyproxy/envoy#35157, open in 1.40). Workers take it at once, unless they wait for a processor: 20 ms were too short on a busy machine.
pub const TAKEN: Duration = Duration::from_secs(2);

/// How long a connection may take to stand. In an aggregate, the fallback waits that long for a relay whose machine is gone.
const CONNECT_TIMEOUT: &str = "1s";

/// How long Envoy keeps an unused connection to the relay: less than the relay keeps it. A POST that races with a close by the other side is lost.
const RELAY_IDLE_TIMEOUT: &str = "60s";

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const HTTP_OPTIONS_TYPE: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Bytes that one HTTP/2 stream may have under way, and one client that stalls may pin. Many times what a round trip inside a cluster needs.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The most that HTTP/2 can say (RFC 9113 section 6.9.1). All callers share a connection: with Envoy's own 24 MiB for it and 16 MiB for a stream, two clients
/// that stall would stop all responses.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The cluster of an intercept. It bears the port: an intercept that moves to another one must not send requests that are still under way on the first one to another program.
pub fn intercept_name(port: u16, intercept: &str) -> String {
    format!("intercept|{port}|{intercept}")
}

/// The same in a mesh, where there are several relays: a request that is held at one relay must not fall back from another.
pub fn mesh_intercept_name(port: u16, intercept: &str, relay: u16) -> String {
    format!("{}|relay-{relay}", intercept_name(port, intercept))
}

/// The cluster of the in-cluster version, as a member of the aggregates.
pub fn app_name(port: u16) -> String {
    format!("intercept-app|{port}")
}

/// An intercept's cluster: attempt 1 goes to the relay, attempt 2 to the in-cluster version. A relay cluster that is missing or empty is passed over.
pub fn aggregate(name: &str, relay: &str, app: &str) -> Value {
    json!({
        "name": name,
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": breakers(),
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [relay, app],
            },
        },
        "typed_extension_protocol_options": {HTTP_OPTIONS: {
            "@type": HTTP_OPTIONS_TYPE,
            // Of the member that is asked: Envoy wants some protocol here.
            "explicit_http_config": {"http_protocol_options": {}},
            "http_filters": gate::upstream_filters(),
        }},
    })
}

/// The in-cluster version at a fixed address.
pub fn app(name: &str, address: SocketAddr, protocol: Protocol) -> Value {
    let mut cluster = endpoint(name, address, http_options(protocol, &json!({})));
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] =
        json!({"filter_metadata": {gate::APP_METADATA: {}}});
    cluster
}

/// The relay at a fixed address.
pub fn relay(name: &str, address: SocketAddr, protocol: Protocol) -> Value {
    let mut cluster = endpoint(name, address, relay_options(protocol));
    // The numbers are those of Linux; another kernel would refuse every connection.
    if cfg!(target_os = "linux") {
        cluster["upstream_bind_config"] = reset_on_close();
    }
    cluster
}

/// Connections to a relay that are reset when Envoy closes them (`SO_LINGER` of 0 s). An end in good order waits behind what the relay does not read because
/// nothing takes it, and a client that left would stay there for ever.
pub fn reset_on_close() -> Value {
    // `{l_onoff: 1, l_linger: 0}` in base64; Envoy runs on little-endian machines only.
    json!({"socket_options": [{
        "description": "SO_LINGER",
        "level": 1,
        "name": 13,
        "buf_value": "AQAAAAAAAAA=",
    }]})
}

/// How the relay is spoken to.
fn relay_options(protocol: Protocol) -> Option<Value> {
    let common = json!({"common_http_protocol_options": {"idle_timeout": RELAY_IDLE_TIMEOUT}});
    http_options(protocol, &common)
}

/// The same for a cluster that Istio made: a merge replaces these options as a whole.
pub fn merged_relay_options(protocol: Protocol) -> Value {
    json!({HTTP_OPTIONS: relay_options(protocol)})
}

fn endpoint(name: &str, address: SocketAddr, options: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "circuit_breakers": breakers(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(address)}}]}],
        },
    });
    if let Some(options) = options {
        cluster["typed_extension_protocol_options"] = json!({HTTP_OPTIONS: options});
    }
    cluster
}

/// An address as Envoy writes it.
pub fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// `None` where Envoy's default, HTTP/1.1, is all that is wanted. Extended CONNECT carries WebSockets over HTTP/2 (RFC 8441).
fn http_options(protocol: Protocol, common: &Value) -> Option<Value> {
    let h2 = json!({
        "allow_connect": true,
        "initial_stream_window_size": STREAM_WINDOW,
        "initial_connection_window_size": CONNECTION_WINDOW,
    });
    let (key, value) = match protocol {
        Protocol::Http if *common == json!({}) => return None,
        Protocol::Http => ("explicit_http_config", json!({"http_protocol_options": {}})),
        Protocol::Http2 | Protocol::Grpc => (
            "explicit_http_config",
            json!({"http2_protocol_options": h2}),
        ),
        Protocol::Auto => (
            "use_downstream_protocol_config",
            json!({"http_protocol_options": {}, "http2_protocol_options": h2}),
        ),
    };
    let mut options = json!({
        "@type": HTTP_OPTIONS_TYPE,
        key: value,
    });
    for (key, value) in common.as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    Some(options)
}

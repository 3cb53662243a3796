//! What the mesh does in front of a relay: who may call it, and what its sidecar says in the relay's stead.

use serde_json::{Value, json};

use super::{ClusterInstall, H2_PORT, HTTP_PORT};
use crate::cluster;
use crate::facts::Protocol;
use crate::istio::names::{self, RELAY};
use crate::istio::object::Object;

const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

pub fn objects(install: &ClusterInstall) -> Vec<Object> {
    vec![
        peer_authentication(install),
        authorization_policy(install),
        marks(install),
    ]
}

fn peer_authentication(install: &ClusterInstall) -> Object {
    Object::new(
        "Only mTLS: the relay trusts what its sidecar says about the caller's identity, so every caller must have one.",
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": names::metadata(RELAY, &install.mesh.namespace, RELAY),
            "spec": {
                "selector": {"matchLabels": names::selector(RELAY)},
                "mtls": {"mode": "STRICT"},
            },
        }),
    )
}

fn authorization_policy(install: &ClusterInstall) -> Object {
    Object::new(
        "Every workload of the mesh may connect to the data ports, and to no other port. Which of them may use a tunnel is decided by the relay: \
         it compares the caller with the workload that the tunnel was opened for, which a policy cannot know.\n\
         The presence port is opened for each namespace with connections into the cluster, by a policy of its own.",
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": names::metadata(RELAY, &install.mesh.namespace, RELAY),
            "spec": {
                "selector": {"matchLabels": names::selector(RELAY)},
                "action": "ALLOW",
                "rules": [{
                    "from": [{"source": {"principals": ["*"]}}],
                    "to": [{"operation": {"ports": [HTTP_PORT.to_string(), H2_PORT.to_string()]}}],
                }],
            },
        }),
    )
}

fn marks(install: &ClusterInstall) -> Object {
    let mappers = "/spec/configPatches/0/patch/value/typed_config/local_reply_config/mappers";
    Object::new(
        "What a relay's own sidecar adds: marks on the answers that it gives itself, because the relay's process is dead, for instance. The workload's sidecar believes nothing else.\n\
         Without them a POST or a gRPC call would fail instead of being answered by the in-cluster version.\n\
         And the caller's identity, without which the relay lets no request into a tunnel.",
        json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": names::metadata(RELAY, &install.mesh.namespace, RELAY),
            "spec": {
                "workloadSelector": {"labels": names::selector(RELAY)},
                "configPatches": [{
                    "applyTo": "NETWORK_FILTER",
                    "match": {
                        "context": "SIDECAR_INBOUND",
                        "listener": {"filterChain": {"filter": {"name": HTTP_CONNECTION_MANAGER}}},
                    },
                    "patch": {"operation": "MERGE", "value": {"name": HTTP_CONNECTION_MANAGER, "typed_config": connection_manager()}},
                }, {
                    "applyTo": "ROUTE_CONFIGURATION",
                    "match": {"context": "SIDECAR_INBOUND"},
                    "patch": {"operation": "MERGE", "value": identity()},
                }, {
                    "applyTo": "CLUSTER",
                    "match": {"context": "SIDECAR_INBOUND", "cluster": {"name": format!("inbound|{HTTP_PORT}||")}},
                    "patch": {"operation": "MERGE", "value": to_relay()},
                }],
            },
        }),
    )
    .note("/spec/workloadSelector", "Only the relays' own sidecars.")
    .note(
        "/spec/configPatches/0/patch/value/typed_config/max_request_headers_kb",
        "A matched request carries more headers than it came with. One that the workload would still take must not fail on the way to the developer.",
    )
    .note(
        format!("{mappers}/0"),
        "Perhaps handed on, and gRPC. Envoy derives grpc-status from the status: of 400 it makes 13, INTERNAL, which clients do not repeat; of 502 it would make 14, which they do.\n\
         Before the others: a runtime key that is set by chance can make those match more, but never take a request away from these.",
    )
    .note(
        format!("{mappers}/1"),
        "Perhaps handed on: only safe methods go to the in-cluster version; others see the error, as the relay itself would say it.",
    )
    .note(
        format!("{mappers}/2"),
        "Certainly not handed on: any request may go to the in-cluster version. Only answers of the sidecar itself are looked at; a developer's own 403 or 503 passes as it is.",
    )
    .note(format!("{mappers}/2/filter/or_filter/filters/1"), "Refused by an AuthorizationPolicy.")
    .note(format!("{mappers}/2/filter/or_filter/filters/2"), "Headers too large even so.")
    .note(
        "/spec/configPatches/1",
        "The identity in the caller's certificate, in a header that no caller can write. The relay lets a request into a tunnel only if it is the workload's.",
    )
    .note(
        "/spec/configPatches/2",
        "A client that leaves is gone at the relay at once: an end in good order would wait behind what the relay does not read.\n\
         And the relay is spoken to as its sidecar is: over HTTP/1.1 a gRPC call loses its trailers.",
    )
}

/// Removed before it is added: Envoy adds no empty value, and would leave a caller without a certificate the one that it sent.
fn identity() -> Value {
    json!({
        "request_headers_to_remove": ["x-intercept-peer"],
        "request_headers_to_add": [{
            "header": {"key": "x-intercept-peer", "value": "%DOWNSTREAM_PEER_URI_SAN%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }],
    })
}

/// The cluster that is the relay's own process.
fn to_relay() -> Value {
    json!({
        "upstream_bind_config": cluster::reset_on_close(),
        "typed_extension_protocol_options": cluster::merged_relay_options(Protocol::Auto),
    })
}

fn connection_manager() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "max_request_headers_kb": 128,
        "common_http_protocol_options": {"max_headers_count": 1000},
        "local_reply_config": {"mappers": [
            lost(json!({"and_filter": {"filters": [broken(), is_grpc()]}}), 400),
            lost(broken(), 502),
            mapper(
                json!({"or_filter": {"filters": [
                    {"response_flag_filter": {"flags": ["UF", "UH", "UO", "NR", "NC", "RL", "UAEX", "OM"]}},
                    status_is(403),
                    status_is(431),
                ]}}),
                None,
                &[("x-intercept-unavailable", "relay-sidecar")],
            ),
        ]},
    })
}

/// The connection to the relay, or from the workload, broke while a request was on it.
fn broken() -> Value {
    json!({"response_flag_filter": {"flags": ["UC", "UR", "UPE", "LR", "DPE"]}})
}

/// What Envoy itself takes for gRPC: it then makes a trailers-only answer of its own.
fn is_grpc() -> Value {
    json!({"header_filter": {"header": {"name": "content-type", "string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}}}})
}

/// The marks and the text are those of the relay itself for a request that was under way.
fn lost(filter: Value, status: u16) -> Value {
    let marks = [
        ("x-intercept-lost", "relay-sidecar"),
        (
            "x-intercept-error",
            "the relay ended while it had the request",
        ),
    ];
    mapper(filter, Some(status), &marks)
}

/// Envoy demands a runtime key. Who sets it changes the status: hence the order of the mappers.
fn status_is(status: u16) -> Value {
    json!({"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "injector.none"}}}})
}

fn mapper(filter: Value, status: Option<u16>, marks: &[(&str, &str)]) -> Value {
    let marks = marks.iter().map(|(name, value)| {
        json!({
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        })
    });
    let mut mapper = json!({"filter": filter, "headers_to_add": marks.collect::<Vec<_>>()});
    if let Some(status) = status {
        mapper["status_code"] = json!(status);
    }
    mapper
}

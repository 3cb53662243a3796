//! The gate as an EnvoyFilter, and the clusters behind it: the in-cluster version of each port, and the one of an intercept.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::facts::{Mesh, Port, Workload};
use super::object::Object;
use crate::facts::Protocol;
use crate::{cluster, gate};

/// Ours is applied last, so that what it inserts first ends up first.
const PRIORITY: i32 = 1000;

/// The cluster of an intercept: the relay, then the in-cluster version.
pub fn aggregate(mesh: &Mesh, namespace: &str, name: &str, port: &Port, replica: u16) -> Value {
    let relay = mesh.relay_cluster(replica, port.protocol);
    let mut aggregate = cluster::aggregate(name, &relay, &cluster::app_name(port.number));
    add_services(&mut aggregate, mesh, namespace, port);
    aggregate
}

/// The in-cluster version as the fallback: not through Istio's own inbound cluster, which goes where the connection was meant to go and cannot be a member of an aggregate.
fn app(mesh: &Mesh, namespace: &str, port: &Port) -> Value {
    let mut app = cluster::app(&cluster::app_name(port.number), port.app, port.protocol);
    let source = match port.app.ip() {
        IpAddr::V4(_) => "127.0.0.6",
        IpAddr::V6(_) => "::6",
    };
    app["upstream_bind_config"] = json!({"source_address": {"address": source, "port_value": 0}});
    add_services(&mut app, mesh, namespace, port);
    app
}

/// What Istio's metrics take the destination's name from; like Istio, only Services that lead here by the same port as the first.
fn add_services(cluster: &mut Value, mesh: &Mesh, namespace: &str, port: &Port) {
    let Some(first) = port.services.first() else {
        return;
    };
    let services: Vec<Value> = port
        .services
        .iter()
        .filter(|service| service.port == first.port)
        .map(|service| {
            json!({
                "host": host(mesh, namespace, &service.service),
                "name": service.service,
                "namespace": namespace,
            })
        })
        .collect();
    cluster["metadata"] = json!({"filter_metadata": {"istio": {"services": services}}});
}

fn host(mesh: &Mesh, namespace: &str, service: &str) -> String {
    format!("{service}.{namespace}.svc.{}", mesh.cluster_domain)
}

/// A patch that adds a cluster to the sidecar of the workload.
pub fn add_cluster(value: Value) -> Value {
    json!({
        "applyTo": "CLUSTER",
        "match": {"context": "SIDECAR_INBOUND"},
        "patch": {"operation": "ADD", "value": value},
    })
}

/// A patch to Istio's own cluster of a relay: how it is spoken to by ports of this protocol.
fn relay_options(mesh: &Mesh, replica: u16, protocol: Protocol) -> Value {
    json!({
        "applyTo": "CLUSTER",
        "match": {"context": "SIDECAR_OUTBOUND", "cluster": {"name": mesh.relay_cluster(replica, protocol)}},
        "patch": {"operation": "MERGE", "value": {"typed_extension_protocol_options": cluster::merged_relay_options(protocol)}},
    })
}

/// The two routes of one port, in the order in which INSERT_FIRST must be given them.
fn routes(mesh: &Mesh, namespace: &str, port: &Port) -> Vec<Value> {
    let operation = port.services.first().map(|service| {
        let host = host(mesh, namespace, &service.service);
        format!("{host}:{}/*", service.port)
    });
    let gate = gate::Gate {
        default_cluster: &format!("inbound|{}||", port.number),
        app: port.app,
        operation: operation.as_deref(),
    };
    let insert_first = |route| {
        json!({
            "applyTo": "HTTP_ROUTE",
            "match": {"context": "SIDECAR_INBOUND", "routeConfiguration": {"portNumber": port.number}},
            "patch": {"operation": "INSERT_FIRST", "value": route},
        })
    };
    gate.routes().into_iter().rev().map(insert_first).collect()
}

/// The gate of a workload, all its ports.
pub fn object(mesh: &Mesh, workload: &Workload) -> Object {
    let namespace = &workload.namespace;
    let mut patches = Patches::default();
    for port in &workload.ports {
        let number = port.number;
        let [all, safe] = [
            format!(
                "Port {number}, the second route: requests that may change something. Only a mark that says \"certainly not handed on\" sends one of them to the in-cluster version."
            ),
            format!(
                "Port {number}, the first route (INSERT_FIRST turns the order round): safe methods may also be repeated when the developer's side broke under way."
            ),
        ];
        for (comment, route) in [all, safe].into_iter().zip(routes(mesh, namespace, port)) {
            patches.push(comment, route);
        }
    }
    for port in &workload.ports {
        let number = port.number;
        patches.push(
            format!("Port {number}: the in-cluster version as a fallback."),
            add_cluster(app(mesh, namespace, port)),
        );
    }
    let speaks = |protocols: &[Protocol]| {
        let mut ports = workload.ports.iter();
        ports.any(|port| protocols.contains(&port.protocol))
    };
    let whole = "What Istio and the DestinationRule say of this cluster's protocol is repeated, since these options are replaced as a whole.";
    if speaks(&[Protocol::Http2, Protocol::Grpc]) {
        for replica in 0..mesh.relay_replicas {
            patches.push(
                format!("Relay {replica} over HTTP/2, where all developers share a connection: a small window for each stream and the largest for the connection, so that a client that stalls slows only itself. {whole}"),
                relay_options(mesh, replica, Protocol::Http2),
            );
        }
    }
    if speaks(&[Protocol::Auto]) {
        for replica in 0..mesh.relay_replicas {
            patches.push(
                format!("Relay {replica} in what the client speaks, for ports without a protocol: over HTTP/1.1 a gRPC call loses its trailers. {whole}"),
                relay_options(mesh, replica, Protocol::Auto),
            );
        }
    }
    annotated(patches.into_object(workload), workload)
}

/// The comments inside the first route and the first cluster; the others are the same.
fn annotated(object: Object, workload: &Workload) -> Object {
    let app = format!(
        "/spec/configPatches/{}/patch/value",
        2 * workload.ports.len()
    );
    let route = "/spec/configPatches/0/patch/value";
    object
        .note("/spec/priority", "Applied after other EnvoyFilters, so that what it inserts first ends up first.")
        .note("/spec/workloadSelector", "This workload's pods and no others: without it, every proxy of the namespace.")
        .note(format!("{route}/match/filter_state"), "Set by the filter for requests that an intercept matches. No header can set it, so nothing that a client sends opens the gate.")
        .note(format!("{route}/decorator"), "As in Istio's own route: the name of the span.")
        .note(format!("{route}/route/inline_cluster_specifier_plugin"), "The cluster that the filter names, if this proxy knows it; Istio's own otherwise. Between two pushes a plain `cluster_header` would answer 503.")
        .note(format!("{route}/route/timeout"), "Once a developer's server has a request there is no time limit: a breakpoint may hold it.")
        .note(format!("{route}/route/max_stream_duration"), "As in Istio's own route: `grpc-timeout` is heeded.")
        .note(format!("{route}/route/retry_policy"), "Once, at once, and not where the first attempt went. On positive marks only: \"retry what lacks a mark\" would make the in-cluster version run requests twice. A mark in an answer of the in-cluster version is none.")
        .note(format!("{route}/request_body_buffer_limit"), "Bytes of a body that are kept for the second attempt. A larger request has no fallback.")
        .note(format!("{route}/request_headers_to_remove"), "The filter's own header, and those by which a client could change the retries where it counts as internal.")
        .note(format!("{route}/response_headers_to_remove"), "The marks are for this proxy alone: an application that passes on the headers of an answer must not make a mark of its own with them.")
        .note(format!("{route}/response_headers_to_add"), "Which intercept took the request, also when the in-cluster version answered in its place.")
        .note("/spec/configPatches/1/patch/value/match/filter_state", "Set by the filter beside the other where the request is safe: GET, HEAD, OPTIONS (RFC 9110 section 9.2.1). PUT and DELETE are left out: two programs would run them.")
        .note(format!("{app}/circuit_breakers"), "Envoy allows 3 retries at once, and a fallback is a retry that holds its slot until the in-cluster version has answered: without this, 62 % of 8 concurrent ones fail.")
        .note(format!("{app}/upstream_bind_config"), "What Istio's own inbound cluster does: connections from this address are not caught by the sidecar again.")
        .note(format!("{app}/load_assignment"), "By its metadata, the intercepts' clusters know the in-cluster version.")
        .note(format!("{app}/metadata"), "As in Istio's own cluster: its metrics take the destination's name from here.")
}

#[derive(Default)]
struct Patches {
    values: Vec<Value>,
    comments: Vec<String>,
}

impl Patches {
    fn push(&mut self, comment: String, value: Value) {
        self.comments.push(comment);
        self.values.push(value);
    }

    fn into_object(self, workload: &Workload) -> Object {
        let name = workload.object_name();
        let object = Object::new(
            format!(
                "The gate of {}: two routes per port that only matched requests see, in front of all others, and the in-cluster version as a cluster for each port.\n\
                 Written once: a change of an inbound route drains listeners and cuts open streams after 45 s. An intercept changes nothing here.",
                workload.label()
            ),
            json!({
                "apiVersion": "networking.istio.io/v1alpha3",
                "kind": "EnvoyFilter",
                "metadata": workload.metadata(&name),
                "spec": {
                    "priority": PRIORITY,
                    "workloadSelector": {"labels": workload.selector},
                    "configPatches": self.values,
                },
            }),
        );
        let notes = self.comments.into_iter().enumerate();
        notes.fold(object, |object, (index, comment)| {
            object.note(format!("/spec/configPatches/{index}"), comment)
        })
    }
}

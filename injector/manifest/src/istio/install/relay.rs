//! The relays: the in-cluster end of the tunnels.

use serde_json::{Value, json};

use super::{CONTROL_PORT, ClusterInstall, H2_PORT, HTTP_PORT, PRESENCE_PORT, pods};
use crate::istio::names::{self, OUTBOUND, RELAY};
use crate::istio::object::Object;

/// Where the sidecar's agent shows the metrics of both, the sidecar and the relay.
const MERGED_METRICS_PORT: u16 = 15020;

/// How long the relay of a pod that ends goes on as before, in seconds.
///
/// Its sidecar drains meanwhile. A native sidecar (an init container that restarts) ends as soon as the relay has, drained or not.
const LINGER: u8 = 5;
/// For how much of that the sidecar takes new connections.
///
/// Callers whose connections it ends in good order go elsewhere; one that is used when the sidecar ends has an error.
const SIDECAR_DRAIN: &str = "3s";
/// How long any other sidecar of a pod that ends lives on.
///
/// The relay lingers, gives running requests 10 s, and cuts off the others within 3 s.
const SIDECAR_LIFE: &str = "20s";

pub fn objects(install: &ClusterInstall) -> Vec<Object> {
    let mut objects = vec![
        pods::service_account(
            install,
            RELAY,
            "The relays' identity in the mesh. No role is bound to it.",
        ),
        governing_service(install),
    ];
    objects.extend((0..install.mesh.relay_replicas).map(|index| replica_service(install, index)));
    objects.push(pods::disruption_budget(
        install,
        RELAY,
        "A drained node takes one relay at a time: its tunnels reconnect when it is back, and meanwhile its requests are answered by the in-cluster version.",
    ));
    objects.push(network_policy(install));
    objects.push(stateful_set(install));
    objects
}

fn network_policy(install: &ClusterInstall) -> Object {
    let asking = json!({
        "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": names::selector(OUTBOUND)}}],
        "ports": [{"protocol": "TCP", "port": PRESENCE_PORT}],
    });
    pods::network_policy(
        install,
        RELAY,
        &[HTTP_PORT, H2_PORT, MERGED_METRICS_PORT],
        "Reachable are the two data ports, and Istio's port for metrics. The control port is on the pod's loopback: a port-forward reaches it past every network policy, held by \
         the API server's rights on `pods/portforward`. What goes out is not restricted here: only the sidecar dials anything, and where istiod and tracing are differs from mesh to mesh.",
    )
    .and(
        "/spec/ingress",
        asking,
        "The pods of developers' connections, by which a namespace asks whether a tunnel is up. Their identity is checked by an AuthorizationPolicy for each namespace.",
    )
}

fn governing_service(install: &ClusterInstall) -> Object {
    Object::new(
        "What a StatefulSet needs for its pods' names. It takes no traffic: it has no ports, so it makes no listener and no cluster in any sidecar.",
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": names::metadata(RELAY, &install.mesh.namespace, RELAY),
            "spec": {"clusterIP": "None", "selector": names::selector(RELAY)},
        }),
    )
}

fn replica_service(install: &ClusterInstall, index: u16) -> Object {
    let name = names::relay_replica(index);
    let mut selector = names::selector(RELAY);
    selector["statefulset.kubernetes.io/pod-name"] = json!(name);
    Object::new(
        format!("Relay {index} by itself: a tunnel ends at one relay, and requests must reach that one."),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": names::metadata(&name, &install.mesh.namespace, RELAY),
            "spec": {
                "selector": selector,
                "ports": [
                    {"name": "http-data", "port": HTTP_PORT, "targetPort": HTTP_PORT, "appProtocol": "http"},
                    {"name": "h2-data", "port": H2_PORT, "targetPort": H2_PORT, "appProtocol": "http2"},
                    {"name": "tcp-presence", "port": PRESENCE_PORT, "targetPort": PRESENCE_PORT, "appProtocol": "tcp"},
                ],
            },
        }),
    )
    .note(
        "/spec/ports/2",
        "Whether a tunnel is up, for the pods of developers' connections. Opaque bytes: a sidecar would route HTTP by its `Host` header.",
    )
    .note(
        "/spec/ports",
        "Named, with their protocols: an unnamed port is opaque bytes for the relay's sidecar, which then can neither mark its own answers nor tell who calls.\n\
         A relay that is not ready has no endpoint; its requests go straight to the in-cluster version.",
    )
}

fn stateful_set(install: &ClusterInstall) -> Object {
    let mut metadata = names::metadata(RELAY, &install.mesh.namespace, RELAY);
    metadata["labels"]["app.kubernetes.io/version"] = json!(install.version);
    metadata["annotations"] = json!({names::CLUSTER_DOMAIN: install.mesh.cluster_domain});
    let template = json!({"metadata": template_metadata(), "spec": pods::spread(install, RELAY, container(install))});
    let object = Object::new(
        "The relays. They keep no state and hold no credentials: a relay that restarts has forgotten its tunnels, and the developer machines open them again.",
        json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": metadata,
            "spec": {
                "replicas": install.mesh.relay_replicas,
                "serviceName": RELAY,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": names::selector(RELAY)},
                "template": template,
            },
        }),
    );
    pods::annotated(object)
        .note("/metadata/labels/app.kubernetes.io~1version", "Commands compare it with their own.")
        .note("/metadata/annotations/injector.dev~1cluster-domain", "How names of Services end here; remembered for the next `injector install`.")
        .note("/spec/podManagementPolicy", "No relay waits for another one.")
        .note("/spec/template/metadata/annotations/prometheus.io~1scrape", "Istio's agent scrapes the relay on its loopback and shows its metrics with the sidecar's own, on port 15020.")
        .note("/spec/template/metadata/annotations/sidecar.istio.io~1interceptionMode", "The relay tells its sidecar from a port-forward by the address it comes from, which TPROXY would hide.")
        .note("/spec/template/metadata/annotations/sidecar.istio.io~1rewriteAppHTTPProbers", "The agent probes for the kubelet. Otherwise the sidecar accepts the connection, whether or not the relay lives.")
        .note(
            "/spec/template/metadata/annotations/proxy.istio.io~1config",
            "When the pod ends, the sidecar outlives the relay, which answers what it cuts off within 18 s, and takes no new connection long before. By Istio's defaults it would live 5 s and take connections to its end: callers would get a bare 503.",
        )
        .note(
            "/spec/template/spec/containers/0/lifecycle",
            "Until callers have left its sidecar, the relay stays: a native sidecar ends with it, and a request in that sidecar would get a bare 503.",
        )
        .note("/spec/template/spec/containers/0/args", "The control port is on the loopback: only a port-forward reaches it. The presence port answers nothing but whether a tunnel is up.")
        .note("/spec/template/spec/containers/0/readinessProbe", "It listens, so it takes requests: a relay has nothing else to get ready.")
        .note("/spec/template/spec/containers/0/resources", "No limit on the CPU, which would only delay requests, nor on memory: the relay bounds its own over all tunnels.")
}

fn template_metadata() -> Value {
    let mut labels = names::labels(RELAY);
    labels["sidecar.istio.io/inject"] = json!("true");
    json!({
        "labels": labels,
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": CONTROL_PORT.to_string(),
            "prometheus.io/path": "/metrics",
            "sidecar.istio.io/interceptionMode": "REDIRECT",
            "sidecar.istio.io/rewriteAppHTTPProbers": "true",
            "proxy.istio.io/config": json!({"drainDuration": SIDECAR_DRAIN, "terminationDrainDuration": SIDECAR_LIFE}).to_string(),
        },
    })
}

fn container(install: &ClusterInstall) -> Value {
    json!({
        "name": "relay",
        "image": install.image,
        "command": ["/injector"],
        "args": [
            "relay",
            "--listen", format!("0.0.0.0:{HTTP_PORT}"),
            "--listen", format!("0.0.0.0:{H2_PORT}"),
            "--control", format!("127.0.0.1:{CONTROL_PORT}"),
            "--presence", format!("0.0.0.0:{PRESENCE_PORT}"),
        ],
        "ports": [
            {"name": "http-data", "containerPort": HTTP_PORT},
            {"name": "h2-data", "containerPort": H2_PORT},
            {"name": "tcp-presence", "containerPort": PRESENCE_PORT},
        ],
        "lifecycle": {"preStop": {"sleep": {"seconds": LINGER}}},
        "readinessProbe": {"tcpSocket": {"port": HTTP_PORT}, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"tcpSocket": {"port": HTTP_PORT}, "periodSeconds": 10, "failureThreshold": 3},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": pods::container_security(),
    })
}

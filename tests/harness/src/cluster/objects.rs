//! The Kubernetes objects of a test: the app, its caller, and the objects of every namespace.
//!
//! Knows nothing of intercepts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::stage::{Kind, Plan, Port};
use super::{DEVELOPERS, SYSTEM};
use crate::tcp_proxy::PORT as PASSAGE;

/// Directory in the pods where apps record executed requests.
const COUNTS: &str = "/counts";

/// Binds a role to a user.
pub fn binding(namespace: &str, kind: &str, subject: &Value) -> Value {
    let who = subject["name"].as_str().expect("a name");
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": format!("injector-{who}"), "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "injector-developer"},
        "subjects": [subject]})
}

/// Refuses plain text in the whole mesh by default, including between the injector's own parts.
pub fn strict_mesh() -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"mtls": {"mode": "STRICT"}}})
}

/// The namespace, created first.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": "enabled"}}})
}

/// All objects of a plan in its namespace.
pub fn of_plan(plan: &Plan, namespace: &str, image: &str, counts: &str) -> Vec<Value> {
    let group =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": DEVELOPERS});
    let mut objects = vec![
        binding(namespace, "ClusterRole", &group),
        look(namespace),
        look_binding(namespace),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders", "namespace": namespace}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "caller", "namespace": namespace}}),
        service(plan, namespace),
        workload(plan, namespace, image, counts),
        caller(namespace, image),
        no_retries(namespace),
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": namespace},
            "spec": {"mtls": {"mode": if plan.is_strict { "STRICT" } else { "PERMISSIVE" }}}}),
    ];
    objects.extend(plan.objects.iter().cloned().map(|mut object| {
        object["metadata"]["namespace"] = namespace.into();
        object
    }));
    debug_assert_ne!(namespace, SYSTEM);
    objects
}

/// The right to query a replica's Envoy.
///
/// Without it the CLI cannot tell whether all replicas have an intercept.
fn look(namespace: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "look", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}]})
}

/// Binds the role to bob only.
fn look_binding(namespace: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "look", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]})
}

fn service(plan: &Plan, namespace: &str) -> Value {
    let ports: Vec<Value> = plan
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "port": port.service, "targetPort": port.container}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"selector": {"app": "orders"}, "ports": ports}})
}

fn workload(plan: &Plan, namespace: &str, image: &str, counts: &str) -> Value {
    let mut containers = BTreeSet::new();
    let own: Vec<&Port> = plan
        .ports
        .iter()
        .filter(|port| containers.insert(port.container))
        .collect();
    let open = own.iter().map(|port| (port.container, &port.app));
    let hidden = plan.hidden.iter().map(|(port, app)| (*port, app));
    let words = open
        .chain(hidden)
        .map(|(port, app)| format!("{app}={port}"));
    let arguments: Vec<String> = std::iter::once("serve".to_owned()).chain(words).collect();
    let ports: Vec<Value> = own
        .iter()
        .map(|port| json!({"name": port.name, "containerPort": port.container}))
        .collect();
    let first = plan.ports[0].container;
    let mut workload = json!({"apiVersion": "apps/v1", "kind": plan.kind.name(), "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "orders"}},
            "template": {"metadata": {"labels": {"app": "orders"}, "annotations": plan.annotations}, "spec": {
                "serviceAccountName": "orders",
                "terminationGracePeriodSeconds": 10,
                "containers": [{"name": "app", "image": image, "imagePullPolicy": "Never", "args": arguments, "ports": ports,
                    "env": [{"name": "COUNTS", "value": COUNTS}],
                    "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": first}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "counts", "mountPath": COUNTS}]}],
                "volumes": [{"name": "counts", "hostPath": {"path": counts, "type": "Directory"}}]}}}});
    match plan.kind {
        Kind::Deployment => {
            workload["spec"]["replicas"] = plan.replicas.into();
            // A new replica serves before an old one ends.
            workload["spec"]["strategy"] =
                json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
        }
        Kind::StatefulSet => {
            workload["spec"]["replicas"] = plan.replicas.into();
            workload["spec"]["serviceName"] = "orders".into();
        }
        Kind::DaemonSet => {}
    }
    workload
}

fn caller(namespace: &str, image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "caller", "namespace": namespace, "labels": {"app": "caller"},
            "annotations": {"traffic.sidecar.istio.io/excludeInboundPorts": PASSAGE.to_string()}},
        "spec": {"serviceAccountName": "caller", "terminationGracePeriodSeconds": 1, "containers": [
            {"name": "app", "image": image, "imagePullPolicy": "Never", "args": ["tcp_proxy"],
             "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}},
             "readinessProbe": {"tcpSocket": {"port": PASSAGE}, "periodSeconds": 1}}]}})
}

/// Disables Istio's default retries in the caller's sidecar, so that every failure is visible.
fn no_retries(namespace: &str) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"hosts": ["orders"], "http": [{"route": [{"destination": {"host": "orders"}}], "retries": {"attempts": 0}}]}})
}

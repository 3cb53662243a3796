//! What our own pods have in common: on their nodes they may do nothing.

use serde_json::{Value, json};

use super::ClusterInstall;
use crate::istio::names;
use crate::istio::object::Object;

/// No file can be written, no privilege gained, no system call used that a container does not need.
pub fn container_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The pod of this component with this one container.
pub fn spec(install: &ClusterInstall, component: &str, container: Value) -> Value {
    let mut spec = json!({
        "serviceAccountName": component,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
    });
    if let Some(secret) = &install.image_pull_secret {
        spec["imagePullSecrets"] = json!([{"name": secret}]);
    }
    spec["containers"] = json!([container]);
    spec
}

/// The same, its replicas on different nodes where there are some.
pub fn spread(install: &ClusterInstall, component: &str, container: Value) -> Value {
    let mut spec = spec(install, component, container);
    spec["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": names::selector(component)},
    }]);
    spec
}

/// Says above the fields of a pod's template what they are for.
pub fn annotated(object: Object) -> Object {
    let spec = "/spec/template/spec";
    object
        .note(
            format!("{spec}/automountServiceAccountToken"),
            "It never talks to the API server.",
        )
        .note(
            format!("{spec}/topologySpreadConstraints"),
            "One node that goes away should not take them all.",
        )
        .note(
            format!("{spec}/containers/0/securityContext"),
            "On the container, not the pod: Istio's own containers bring theirs.",
        )
}

/// The identity of a component. Its token is in no pod that does not ask for it.
pub fn service_account(install: &ClusterInstall, component: &str, comment: &str) -> Object {
    Object::new(
        comment,
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": names::metadata(component, &install.mesh.namespace, component),
            "automountServiceAccountToken": false,
        }),
    )
}

/// Drains take one pod after the other.
pub fn disruption_budget(install: &ClusterInstall, component: &str, comment: &str) -> Object {
    Object::new(
        comment,
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": names::metadata(component, &install.mesh.namespace, component),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": names::selector(component)}},
        }),
    )
}

/// Only these TCP ports, from any namespace.
pub fn network_policy(
    install: &ClusterInstall,
    component: &str,
    ports: &[u16],
    comment: &str,
) -> Object {
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({"protocol": "TCP", "port": port}))
        .collect();
    Object::new(
        comment,
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": names::metadata(component, &install.mesh.namespace, component),
            "spec": {
                "podSelector": {"matchLabels": names::selector(component)},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"namespaceSelector": {}}], "ports": ports}],
            },
        }),
    )
    .note(
        "/spec/ingress/0/from",
        "Every namespace: which ones have prepared workloads changes without us.",
    )
}

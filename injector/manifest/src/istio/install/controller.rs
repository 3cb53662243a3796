//! The controller: its account, what it may do, and the Deployment that runs it.

use serde_json::{Value, json};

use super::roles::{cluster_role, rule};
use super::{ClusterInstall, pods};
use crate::istio::facts::Mesh;
use crate::istio::names::{self, CONTROLLER, WORKLOAD_ROLE};
use crate::istio::object::Object;

pub(super) fn objects(install: &ClusterInstall) -> Vec<Object> {
    vec![
        pods::service_account(
            install,
            CONTROLLER,
            "The controller's account. Its token is mounted by the Deployment alone.",
        ),
        reads(),
        reads_binding(&install.mesh),
        writes(),
        network_policy(install),
        deployment(install),
    ]
}

/// Binds the controller's account in the namespace of a prepared workload, to what it writes there.
pub fn workload_binding(mesh: &Mesh, namespace: &str) -> Object {
    Object::new(
        "Lets the controller write the Intercepts of this namespace into the mesh. Removed with the last prepared workload.",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": names::metadata(WORKLOAD_ROLE, namespace, CONTROLLER),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": WORKLOAD_ROLE},
            "subjects": subjects(mesh),
        }),
    )
}

fn reads() -> Object {
    const WATCH: &[&str] = &["get", "list", "watch"];
    cluster_role(
        CONTROLLER,
        "What the controller watches, in all namespaces. What it writes, it may write in prepared namespaces only.",
        vec![
            rule(
                "What developers ask for.",
                "injector.dev",
                &["intercepts"],
                WATCH,
            ),
            rule(
                "Which workloads are prepared.",
                "extensions.istio.io",
                &["wasmplugins"],
                WATCH,
            ),
            rule(
                "Whether the clusters of Intercepts are as they were written.",
                "networking.istio.io",
                &["envoyfilters"],
                WATCH,
            ),
        ],
    )
}

fn reads_binding(mesh: &Mesh) -> Object {
    Object::new(
        "Lets the controller watch.",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": names::cluster_metadata(CONTROLLER),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": CONTROLLER},
            "subjects": subjects(mesh),
        }),
    )
}

/// `create` with `patch`: a server-side apply of an EnvoyFilter that is not there yet. A WasmPlugin is never made, and never deleted.
fn writes() -> Object {
    cluster_role(
        WORKLOAD_ROLE,
        "What the controller writes in the namespace of a prepared workload. The policy injector-controller holds it to single fields.",
        vec![
            rule(
                "Intercepts whose lease is over.",
                "injector.dev",
                &["intercepts"],
                &["delete"],
            ),
            rule(
                "What is said of an Intercept.",
                "injector.dev",
                &["intercepts/status"],
                &["patch", "update"],
            ),
            rule(
                "The text of a workload's intercepts.",
                "extensions.istio.io",
                &["wasmplugins"],
                &["patch"],
            ),
            rule(
                "The cluster of each Intercept.",
                "networking.istio.io",
                &["envoyfilters"],
                &["create", "patch", "delete"],
            ),
            rule(
                "Where the replicas are: their proxies are asked what they have.",
                "",
                &["pods"],
                &["list"],
            ),
            rule(
                "What happened to an Intercept.",
                "events.k8s.io",
                &["events"],
                &["create", "patch"],
            ),
        ],
    )
}

fn network_policy(install: &ClusterInstall) -> Object {
    Object::new(
        "Nothing connects to the controller. What goes out is not restricted here: it needs the API server, and port 15090 of the workloads' pods.",
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": names::metadata(CONTROLLER, &install.mesh.namespace, CONTROLLER),
            "spec": {
                "podSelector": {"matchLabels": names::selector(CONTROLLER)},
                "policyTypes": ["Ingress"],
            },
        }),
    )
}

fn deployment(install: &ClusterInstall) -> Object {
    let mut labels = names::labels(CONTROLLER);
    labels["sidecar.istio.io/inject"] = json!("false");
    let mut spec = pods::spec(install, CONTROLLER, container(install));
    spec["automountServiceAccountToken"] = json!(true);
    let object = Object::new(
        "The controller. It keeps no state: killed at any moment, it goes on where the objects are. Without it no intercept begins; those that run go on to the end of their leases.",
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": names::metadata(CONTROLLER, &install.mesh.namespace, CONTROLLER),
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": names::selector(CONTROLLER)},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }),
    );
    object
        .note("/spec/replicas", "One: another node takes it over within seconds, and nothing that runs waits for it.")
        .note("/spec/strategy", "Two versions at once would each remove what the other one renders.")
        .note("/spec/template/metadata/labels/sidecar.istio.io~1inject", "No sidecar: it starts before the mesh does, and asks proxies on a port that is open under STRICT mTLS.")
        .note("/spec/template/spec/automountServiceAccountToken", "It talks to the API server, the only one of ours that does.")
        .note("/spec/template/spec/containers/0/resources", "75 MiB were measured with 1000 Intercepts.")
}

/// No probe: it listens on nothing, ends when it cannot go on, and notices a dead connection within 25 s.
fn container(install: &ClusterInstall) -> Value {
    json!({
        "name": "controller",
        "image": install.image,
        "command": ["/injector"],
        "args": ["controller"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": pods::container_security(),
    })
}

fn subjects(mesh: &Mesh) -> Value {
    json!([{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": mesh.namespace}])
}

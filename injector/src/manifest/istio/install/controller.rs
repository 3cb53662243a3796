//! What the controller and its users may do: the definition of Intercepts, roles and policies. `injector install` does not apply them yet.

use serde_json::{Value, json};

use super::policy::controlled;
use crate::manifest::istio::facts::Mesh;
use crate::manifest::istio::names::{self, CONTROLLER, DEVELOPER_ROLE};
use crate::manifest::istio::object::Object;
use crate::manifest::istio::resource;

/// The role of the controller in the namespace of a prepared workload.
pub const WORKLOAD_ROLE: &str = "injector-controller-workload";

/// Everything of the cluster's: the definition, both policies, the account and its roles.
pub fn objects(mesh: &Mesh) -> Vec<Object> {
    let mut objects = vec![resource::definition()];
    objects.extend(controlled::objects(mesh));
    objects.extend([
        account(mesh),
        reads(),
        reads_binding(mesh),
        writes(),
        developer(),
    ]);
    objects
}

/// Binds the controller's account in the namespace of a prepared workload, to what it writes there.
pub fn workload_binding(mesh: &Mesh, namespace: &str) -> Object {
    let name = WORKLOAD_ROLE;
    Object::new(
        "Lets the controller write the Intercepts of this namespace into the mesh.",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": names::metadata(name, namespace, CONTROLLER),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": subjects(mesh),
        }),
    )
}

/// For those who intercept: nothing that reaches a proxy.
pub fn developer() -> Object {
    role(
        DEVELOPER_ROLE,
        "For those who intercept. Everything that reaches a proxy is written by the controller.",
        &[
            (
                "One's own Intercepts. The policy injector-intercepts refuses changes of others'.",
                "injector.dev",
                &["intercepts"],
                &["get", "list", "watch", "create", "patch", "delete"],
            ),
            (
                "Which workloads are prepared.",
                "extensions.istio.io",
                &["wasmplugins"],
                &["get", "list"],
            ),
        ],
    )
}

fn account(mesh: &Mesh) -> Object {
    Object::new(
        "The controller's account.",
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": names::metadata(CONTROLLER, &mesh.namespace, CONTROLLER),
        }),
    )
}

fn reads() -> Object {
    role(
        CONTROLLER,
        "What the controller watches, in all namespaces. What it writes, it may write in prepared namespaces only.",
        &[
            (
                "What developers ask for.",
                "injector.dev",
                &["intercepts"],
                &["get", "list", "watch"],
            ),
            (
                "Which workloads are prepared.",
                "extensions.istio.io",
                &["wasmplugins"],
                &["get", "list", "watch"],
            ),
            (
                "Whether the clusters of Intercepts are as they were written.",
                "networking.istio.io",
                &["envoyfilters"],
                &["get", "list", "watch"],
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
    role(
        WORKLOAD_ROLE,
        "What the controller writes in the namespace of a prepared workload. The policy injector-controller holds it to single fields.",
        &[
            (
                "Intercepts whose lease is over.",
                "injector.dev",
                &["intercepts"],
                &["delete"],
            ),
            (
                "What is said of an Intercept.",
                "injector.dev",
                &["intercepts/status"],
                &["patch", "update"],
            ),
            (
                "The text of a workload's intercepts.",
                "extensions.istio.io",
                &["wasmplugins"],
                &["patch"],
            ),
            (
                "The cluster of each Intercept.",
                "networking.istio.io",
                &["envoyfilters"],
                &["create", "patch", "delete"],
            ),
            (
                "Where the replicas are: their proxies are asked what they have.",
                "",
                &["pods"],
                &["list"],
            ),
            (
                "What happened to an Intercept.",
                "events.k8s.io",
                &["events"],
                &["create", "patch"],
            ),
        ],
    )
}

fn subjects(mesh: &Mesh) -> Value {
    json!([{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": mesh.namespace}])
}

/// Comment, group, resources, verbs.
type Rule<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str]);

fn role(name: &str, comment: &str, rules: &[Rule]) -> Object {
    let listed: Vec<Value> = rules
        .iter()
        .map(|(_, group, resources, verbs)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}))
        .collect();
    let object = Object::new(
        comment,
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": names::cluster_metadata(name),
            "rules": listed,
        }),
    );
    let notes = rules.iter().enumerate();
    notes.fold(object, |object, (index, (comment, ..))| {
        object.note(format!("/rules/{index}"), *comment)
    })
}

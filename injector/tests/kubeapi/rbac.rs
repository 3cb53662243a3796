//! Roles and who has them.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role(namespace: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

/// `kind`: `Role` or `ClusterRole`.
pub fn binding(namespace: &str, user: &str, kind: &str, role: &str) -> Value {
    let name = format!("{user}-{role}");
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}, "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}]})
}

/// In the whole cluster.
pub fn cluster_binding(user: &str, role: &str) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": format!("{user}-{role}")},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}, "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}]})
}

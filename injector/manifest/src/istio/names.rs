//! What our objects are called, and the labels and annotations by which they are found again. Everything of ours that is no Kubernetes convention begins with `injector.dev/`.

use serde_json::{Map, Value, json};

use super::invalid::InvalidFacts;
use super::kind::Kind;
use crate::digest;

/// The field manager of everything that `injector install` applies.
pub const INSTALLER: &str = "injector-install";

/// Label that every object of ours carries, with [`MANAGER`] as its value.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "injector";

/// Label that every object of ours carries, with `injector` as its value: of what it is a part.
pub const PART_OF: &str = "app.kubernetes.io/part-of";

/// Label of what belongs to one intercept: its name.
pub const INTERCEPT: &str = "injector.dev/intercept";

/// Annotation of what belongs to one intercept: who claims it, as the API server names that user.
pub const OWNER: &str = "injector.dev/owner";

/// Annotation of what belongs to one workload: `Deployment/orders`.
pub const WORKLOAD: &str = "injector.dev/workload";

/// Annotation of a workload's WasmPlugin: what the operator said of the workload, as JSON.
pub const PREPARATION: &str = "injector.dev/preparation";

/// The controller's Deployment and account, and the field manager of everything that it applies.
pub const CONTROLLER: &str = "injector-controller";

/// The field manager of what a developer's command writes.
pub const COMMAND: &str = "injector-intercept";

/// Annotation of the relay's StatefulSet: the end of every Service's name, so that it need not be said again.
pub const CLUSTER_DOMAIN: &str = "injector.dev/cluster-domain";

/// Where relays, module server and controller are, unless the operator says otherwise.
pub const SYSTEM_NAMESPACE: &str = "injector-system";

/// The relay's StatefulSet, its governing Service, and most of what belongs to it.
pub const RELAY: &str = "injector-relay";

/// The in-cluster end of developers' connections from a namespace: a StatefulSet, its account, its Role, and most of what belongs to it.
pub const OUTBOUND: &str = "injector-outbound";

/// Annotation of its StatefulSets: what the operator said, as JSON.
pub const OUTBOUND_SETTINGS: &str = "injector.dev/outbound";

/// Label that tells its StatefulSets apart.
pub(super) const INSTANCE: &str = "app.kubernetes.io/instance";

/// The server of `filter.wasm`.
pub const MODULE: &str = "injector-module";

/// The role of those who prepare workloads.
pub const OPERATOR_ROLE: &str = "injector-operator";

/// The role of those who intercept.
pub const DEVELOPER_ROLE: &str = "injector-developer";

/// The role of the controller in the namespace of a prepared workload.
pub const WORKLOAD_ROLE: &str = "injector-controller-workload";

/// What the name of an intercept's EnvoyFilter begins with. No object of the installer begins so.
pub const INTERCEPT_PREFIX: &str = "intercept-";

/// How many hexadecimal digits it ends with.
pub const INTERCEPT_HASH: usize = 8;

/// The WasmPlugin and the gate's EnvoyFilter of a workload. The kind is part of it: a Deployment and a StatefulSet may have the same name.
pub fn of_workload(kind: Kind, name: &str) -> String {
    format!("injector-{}-{name}", kind.lower_case())
}

/// The Service of one relay replica, which is also its pod's name.
pub fn relay_replica(index: u16) -> String {
    format!("{RELAY}-{index}")
}

/// The StatefulSet of developers' connections under this service account, and its Role; `None`: under an account of its own.
pub fn outbound_set(account: Option<&str>) -> String {
    match account {
        Some(account) => format!("{OUTBOUND}-{account}"),
        None => OUTBOUND.to_owned(),
    }
}

/// Its only pod.
pub fn outbound_pod(set: &str) -> String {
    format!("{set}-0")
}

/// The AuthorizationPolicy beside the relays for the pods of a namespace.
pub fn outbound_presence(namespace: &str) -> String {
    format!("{OUTBOUND}-{namespace}")
}

/// The EnvoyFilter of one intercept, `intercept-NAME-HASH`. The hash is of all else that tells its cluster from others: one that moves to another workload, port or relay
/// leaves the old object alone, which requests under way still need.
pub fn of_intercept(
    intercept: &str,
    (kind, workload): (Kind, &str),
    port: u16,
    relay: u16,
) -> String {
    let place = digest::sha256(format!("{}/{workload} {port} {relay}", kind.name()));
    format!("{INTERCEPT_PREFIX}{intercept}-{}", &place[..INTERCEPT_HASH])
}

/// The labels of an object of this component.
pub(super) fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": component,
        PART_OF: "injector",
        MANAGED_BY: MANAGER,
    })
}

/// `metadata` of an object in a namespace.
pub(super) fn metadata(name: &str, namespace: &str, component: &str) -> Value {
    json!({"name": name, "namespace": namespace, "labels": labels(component)})
}

/// `metadata` of an object of the whole cluster.
pub(super) fn cluster_metadata(name: &str) -> Value {
    json!({"name": name, "labels": labels("injector")})
}

/// The labels as a selector: those that never change over the life of the pods.
pub(super) fn selector(component: &str) -> Value {
    let name = ("app.kubernetes.io/name".to_owned(), json!(component));
    Value::Object(Map::from_iter([name]))
}

/// RFC 1123 label, but for its length: what Kubernetes demands of names of namespaces and Services.
pub(super) fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// RFC 1123 subdomain: what Kubernetes demands of an object's name.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), InvalidFacts> {
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(InvalidFacts::Name {
        what,
        found: name.to_owned(),
    })
}

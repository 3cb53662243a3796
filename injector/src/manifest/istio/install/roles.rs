//! Who may do what: two roles, each rule with its reason. What RBAC cannot say, `policy` does.

use serde_json::{Value, json};

use super::ClusterInstall;
use crate::manifest::istio::names::{self, DEVELOPER_ROLE, OPERATOR_ROLE, RELAY};
use crate::manifest::istio::object::Object;

struct Rule {
    comment: &'static str,
    rule: Value,
}

pub fn objects(install: &ClusterInstall) -> Vec<Object> {
    let namespace = &install.mesh.namespace;
    vec![
        role(
            &format!(
                "For those who prepare workloads and clear away what others left behind. Bind it in a namespace, or in the whole cluster, and the Role of the same name beside the relays:\n\
                 \n  kubectl create clusterrolebinding injector-operators --clusterrole={OPERATOR_ROLE} --group=GROUP\n\
                 \nWhoever may `update` these objects is not held by the admission policies below."
            ),
            "ClusterRole",
            names::cluster_metadata(OPERATOR_ROLE),
            operator(),
        ),
        role(
            &format!(
                "For those who intercept: bind it in the namespaces whose workloads they may intercept, and the Role of the same name beside the relays.\n\
                 \n  kubectl -n shop create rolebinding injector-developers --clusterrole={DEVELOPER_ROLE} --group=GROUP\n  \
                 kubectl -n {namespace} create rolebinding injector-developers --role={DEVELOPER_ROLE} --group=GROUP\n\
                 \nRBAC sees objects, not fields: the admission policies hold whoever may `patch` these objects and not `update` them. So never add `update` here.\n\
                 \nSecrets and config maps are not in it: no intercept needs them. Only the environment of a workload does (`--env-file`, and `-- CMD` without `--no-env`), and \
                 whoever reads a workload's secrets can do what the workload can. Where developers may have that, grant it by name:\n\
                 \n  kubectl -n shop create role orders-environment --verb=get --resource=configmaps,secrets --resource-name=orders\n  \
                 kubectl -n shop create rolebinding orders-environment --role=orders-environment --group=GROUP"
            ),
            "ClusterRole",
            names::cluster_metadata(DEVELOPER_ROLE),
            developer(),
        ),
        role(
            "For those who intercept, beside the relays: what a tunnel takes. Whoever has this may open tunnels; requests reach one only by an entry in a workload's WasmPlugin.",
            "Role",
            names::metadata(DEVELOPER_ROLE, namespace, "injector"),
            tunnel(install.mesh.relay_replicas),
        ),
        role(
            &format!(
                "For those who prepare workloads, beside the relays: what is installed there, which filter is handed out, and what a tunnel takes, since they may intercept as well. \
                 Whoever does not, and says `injector install --module filter.wasm`, needs the first rule only.\n\
                 \n  kubectl -n {namespace} create rolebinding injector-operators --role={OPERATOR_ROLE} --group=GROUP"
            ),
            "Role",
            names::metadata(OPERATOR_ROLE, namespace, "injector"),
            beside_relays(),
        ),
    ]
}

fn role(comment: &str, kind: &str, metadata: Value, rules: Vec<Rule>) -> Object {
    let (comments, rules): (Vec<_>, Vec<_>) = rules
        .into_iter()
        .map(|rule| (rule.comment, rule.rule))
        .unzip();
    let object = Object::new(
        comment,
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules}),
    );
    comments
        .into_iter()
        .enumerate()
        .fold(object, |object, (index, comment)| {
            object.note(format!("/rules/{index}"), comment)
        })
}

fn rule(comment: &'static str, group: &str, resources: &[&str], verbs: &[&str]) -> Rule {
    Rule {
        comment,
        rule: json!({"apiGroups": [group], "resources": resources, "verbs": verbs}),
    }
}

const READ: &[&str] = &["get", "list"];

/// What both roles look at before they write anything.
fn discovery() -> Vec<Rule> {
    vec![
        rule(
            "What can be intercepted: Services, their pods, and whether these have a sidecar.",
            "",
            &["services", "pods"],
            READ,
        ),
        rule(
            "The workload behind a Service, and its ports.",
            "apps",
            &["deployments", "statefulsets", "daemonsets"],
            READ,
        ),
        rule(
            "What would keep requests from the relay: a Sidecar that hides it, another DestinationRule.",
            "networking.istio.io",
            &["sidecars", "destinationrules"],
            READ,
        ),
        rule(
            "What would refuse requests on the way.",
            "security.istio.io",
            &["peerauthentications", "authorizationpolicies"],
            READ,
        ),
        rule(
            "Who intercepted what, from when to when: an Event on the workload. Listed to tell whoever loses an intercept who removed it. Nobody rewrites one.",
            "",
            &["events"],
            &["create", "list"],
        ),
    ]
}

fn operator() -> Vec<Rule> {
    const WRITE: &[&str] = &["get", "list", "create", "update", "patch", "delete"];
    let mut rules = discovery();
    rules.extend([
        rule(
            "The filter of a workload with its limits, and everybody's entries in it.",
            "extensions.istio.io",
            &["wasmplugins"],
            WRITE,
        ),
        rule(
            "The gate of a workload, the clusters of all intercepts, and the rule for connections to the relays.",
            "networking.istio.io",
            &["envoyfilters", "destinationrules"],
            WRITE,
        ),
        rule(
            "The namespaces with `--all`, and whether the mesh injects there.",
            "",
            &["namespaces"],
            &["get", "list"],
        ),
    ]);
    rules
}

fn developer() -> Vec<Rule> {
    let mut rules = discovery();
    rules.extend([
        rule(
            "Entries of intercepts. `patch` alone, and the admission policies hold it to `spec.pluginConfig.intercepts` and to one's own entries.",
            "extensions.istio.io",
            &["wasmplugins"],
            &["get", "list", "patch"],
        ),
        rule(
            "The cluster of an intercept, which bears its name. The admission policies take exactly one shape, under one's own name.\n\
             Without `create`, `patch` and `delete` intercepts work as well: they then share the cluster of their relay. \
             Reading must stay: the gate, which is an EnvoyFilter too, says where the relays are.",
            "networking.istio.io",
            &["envoyfilters"],
            &["get", "list", "create", "patch", "delete"],
        ),
    ]);
    rules
}

/// The module server's pods have other names after each roll-out, and RBAC knows names only.
fn beside_relays() -> Vec<Rule> {
    vec![
        Rule {
            comment: "How many relays there are, and of which version: the gate of a workload names each.",
            rule: json!({"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": [RELAY], "verbs": ["get"]}),
        },
        rule(
            "Which pod of the module server is ready, and which relay is up.",
            "",
            &["pods"],
            READ,
        ),
        rule(
            "Fetches the filter from the module server, whose digest a workload is prepared with, and opens tunnels. Names of the module server's pods are not known beforehand, so the rule holds for all pods here. \
             A port-forward is a GET up to Kubernetes 1.34; from 1.35 on it asks for `create` as well.",
            "",
            &["pods/portforward"],
            &["get", "create"],
        ),
    ]
}

fn tunnel(replicas: u16) -> Vec<Rule> {
    let pods: Vec<String> = (0..replicas).map(names::relay_replica).collect();
    vec![
        Rule {
            comment: "Which relays there are, and of which version.",
            rule: json!({"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": [RELAY], "verbs": ["get"]}),
        },
        Rule {
            comment: "Is that relay up?",
            rule: json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": pods, "verbs": ["get"]}),
        },
        Rule {
            comment: "The tunnel itself, to the relays' pods and no others. A port-forward is a GET up to Kubernetes 1.34; from 1.35 on it asks for `create` as well.",
            rule: json!({"apiGroups": [""], "resources": ["pods/portforward"], "resourceNames": pods, "verbs": ["get", "create"]}),
        },
    ]
}

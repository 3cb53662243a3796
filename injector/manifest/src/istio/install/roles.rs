//! Who may do what: two roles, each rule with its reason. What RBAC cannot say, `policy` does.

use serde_json::{Value, json};

use super::ClusterInstall;
use crate::istio::names::{self, DEVELOPER_ROLE, OPERATOR_ROLE, RELAY, WORKLOAD_ROLE};
use crate::istio::object::Object;

/// A rule of a role, with its reason.
pub(super) struct Rule {
    comment: &'static str,
    rule: Value,
}

pub fn objects(install: &ClusterInstall) -> Vec<Object> {
    let namespace = &install.mesh.namespace;
    vec![
        cluster_role(
            OPERATOR_ROLE,
            &format!(
                "For those who prepare workloads and end others' intercepts. Bind it in a namespace, or in the whole cluster, and the Role of the same name beside the relays:\n\
                 \n  kubectl create clusterrolebinding injector-operators --clusterrole={OPERATOR_ROLE} --group=GROUP"
            ),
            operator(),
        ),
        cluster_role(
            DEVELOPER_ROLE,
            &format!(
                "For those who intercept: bind it in the namespaces whose workloads they may intercept, and the Role of the same name beside the relays.\n\
                 \n  kubectl -n shop create rolebinding injector-developers --clusterrole={DEVELOPER_ROLE} --group=GROUP\n  \
                 kubectl -n {namespace} create rolebinding injector-developers --role={DEVELOPER_ROLE} --group=GROUP\n\
                 \nThey write Intercepts and nothing else: everything that reaches a proxy is written by the controller.\n\
                 \nSecrets and config maps are not in it: no intercept needs them. Only the environment of a workload does (`--env-file`, and `-- CMD` without `--no-env`), and \
                 a user who reads a workload's secrets can do what the workload can. Where developers may have that, grant it by name:\n\
                 \n  kubectl -n shop create role orders-environment --verb=get --resource=configmaps,secrets --resource-name=orders\n  \
                 kubectl -n shop create rolebinding orders-environment --role=orders-environment --group=GROUP"
            ),
            developer(),
        ),
        role(
            "For those who intercept, beside the relays: what a tunnel takes. Requests reach a tunnel only by an accepted Intercept.",
            "Role",
            names::metadata(DEVELOPER_ROLE, namespace, "injector"),
            tunnel(install.mesh.relay_replicas),
        ),
        role(
            &format!(
                "For those who prepare workloads, beside the relays: what is installed there, which filter is handed out, and what a tunnel takes, since they may intercept as well. \
                 Those who do not, and say `injector install --module filter.wasm`, need the first rule only.\n\
                 \n  kubectl -n {namespace} create rolebinding injector-operators --role={OPERATOR_ROLE} --group=GROUP"
            ),
            "Role",
            names::metadata(OPERATOR_ROLE, namespace, "injector"),
            beside_relays(),
        ),
    ]
}

/// A ClusterRole of ours.
pub(super) fn cluster_role(name: &str, comment: &str, rules: Vec<Rule>) -> Object {
    role(comment, "ClusterRole", names::cluster_metadata(name), rules)
}

pub(super) fn role(comment: &str, kind: &str, metadata: Value, rules: Vec<Rule>) -> Object {
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

/// These verbs on these resources of one group.
pub(super) fn rule(comment: &'static str, group: &str, resources: &[&str], verbs: &[&str]) -> Rule {
    Rule {
        comment,
        rule: json!({"apiGroups": [group], "resources": resources, "verbs": verbs}),
    }
}

/// The same, on the objects of these names.
pub(super) fn rule_by_name(
    comment: &'static str,
    group: &str,
    resource: &str,
    names: &[&str],
    verbs: &[&str],
) -> Rule {
    let mut rule = rule(comment, group, &[resource], verbs);
    rule.rule["resourceNames"] = json!(names);
    rule
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
            "Why an intercept was refused or ended.",
            "",
            &["events"],
            &["list"],
        ),
    ]
}

fn operator() -> Vec<Rule> {
    const WRITE: &[&str] = &["get", "list", "create", "update", "patch", "delete"];
    const RBAC: &str = "rbac.authorization.k8s.io";
    let mut rules = discovery();
    rules.extend([
        rule(
            "The filter of a workload with its limits.",
            "extensions.istio.io",
            &["wasmplugins"],
            WRITE,
        ),
        rule(
            "The gate of a workload, and the rule for connections to the relays.",
            "networking.istio.io",
            &["envoyfilters", "destinationrules"],
            WRITE,
        ),
        rule(
            "Intercepts: one's own, and those to be ended before a workload is unprepared.",
            "injector.dev",
            &["intercepts"],
            &["get", "list", "watch", "create", "patch", "delete"],
        ),
        rule(
            "By this right the policy injector-intercepts knows who may change and delete others' Intercepts.",
            "injector.dev",
            &["intercepts/status"],
            &["update"],
        ),
        rule_by_name(
            "The controller's rights in the namespace.",
            RBAC,
            "rolebindings",
            &[WORKLOAD_ROLE],
            &["get", "create", "patch", "delete"],
        ),
        rule_by_name(
            "Kubernetes lets no one bind a role whose rights they lack, unless they may bind this role.",
            RBAC,
            "clusterroles",
            &[WORKLOAD_ROLE],
            &["bind"],
        ),
        rule(
            "The namespaces with `--all`, and whether the mesh injects there.",
            "",
            &["namespaces"],
            READ,
        ),
    ]);
    rules
}

fn developer() -> Vec<Rule> {
    let mut rules = discovery();
    rules.extend([
        rule(
            "One's own Intercepts. The policy injector-intercepts refuses changes of others'.",
            "injector.dev",
            &["intercepts"],
            &["get", "list", "watch", "create", "patch", "delete"],
        ),
        rule(
            "Which workloads are prepared.",
            "extensions.istio.io",
            &["wasmplugins"],
            READ,
        ),
    ]);
    rules
}

/// The module server's pods have other names after each roll-out, and RBAC knows names only.
fn beside_relays() -> Vec<Rule> {
    vec![
        relays(),
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

fn relays() -> Rule {
    rule_by_name(
        "How many relays there are, and of which version.",
        "apps",
        "statefulsets",
        &[RELAY],
        &["get"],
    )
}

fn tunnel(replicas: u16) -> Vec<Rule> {
    let pods: Vec<String> = (0..replicas).map(names::relay_replica).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    vec![
        relays(),
        rule_by_name("Is that relay up?", "", "pods", &pods, &["get"]),
        rule_by_name(
            "The tunnel itself, to the relays' pods and no others. A port-forward is a GET up to Kubernetes 1.34; from 1.35 on it asks for `create` as well.",
            "",
            "pods/portforward",
            &pods,
            &["get", "create"],
        ),
    ]
}

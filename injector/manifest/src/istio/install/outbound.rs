//! The in-cluster end of developers' connections from one namespace: pods of it, whose identity the mesh sees, and what they may reach.

use serde_json::{Value, json};

use super::roles::{role, rule_by_name};
use super::{ClusterInstall, OUTBOUND_PORT, PRESENCE_PORT, pods};
use crate::istio::facts::Mesh;
use crate::istio::invalid::InvalidFacts;
use crate::istio::names::{self, OUTBOUND, RELAY};
use crate::istio::object::Object;
use crate::istio::reach::{OutboundSettings, Reach};

/// Where the sidecar's agent shows the metrics of both.
const MERGED_METRICS_PORT: u16 = 15020;
/// Where istiod gives sidecars their configuration and certificates.
const ISTIOD_PORT: u16 = 15012;
const DNS_PORT: u16 = 53;
/// Kubernetes makes a label of a StatefulSet's name with a hash behind it, and labels have 63 characters.
const LONGEST_SET: usize = 52;

/// What is rendered for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The namespace.
    pub namespace: String,
    /// What may be reached beside its own Services.
    pub to: Vec<Reach>,
    /// Service accounts of the namespace under which there is one more StatefulSet each.
    pub service_accounts: Vec<String>,
}

/// Everything of a namespace, in the order in which it is applied.
///
/// Applying it takes an administrator: it starts pods under a service account, and writes beside the relays.
pub fn outbound_objects(
    install: &ClusterInstall,
    outbound: &Outbound,
) -> Result<Vec<Object>, InvalidFacts> {
    let Outbound { namespace, .. } = outbound;
    let mesh = &install.mesh;
    mesh.check_reach(namespace)?;
    for reach in &outbound.to {
        mesh.check_reach(&reach.namespace)?;
    }
    let sets = outbound.sets();
    for set in &sets {
        set.check()?;
    }
    let mut objects = vec![
        service_account(namespace),
        presence_policy(mesh, outbound, &sets),
        network_policy(mesh, outbound),
        sidecar(mesh, outbound),
        governing_service(namespace),
    ];
    for set in &sets {
        objects.push(set.role(namespace));
        objects.push(set.stateful_set(install, outbound));
    }
    Ok(objects)
}

impl Outbound {
    fn sets(&self) -> Vec<Set<'_>> {
        let others = self.service_accounts.iter().map(String::as_str).map(Some);
        std::iter::once(None)
            .chain(others)
            .map(|account| Set {
                name: names::outbound_set(account),
                account,
            })
            .collect()
    }

    fn settings(&self, mesh: &Mesh) -> OutboundSettings {
        OutboundSettings {
            mesh: mesh.clone(),
            to: self.to.clone(),
            service_accounts: self.service_accounts.clone(),
        }
    }

    /// Its own namespace first.
    fn reach(&self) -> impl Iterator<Item = Reach> {
        let own = Reach {
            namespace: self.namespace.clone(),
            service: None,
            port: None,
        };
        std::iter::once(own).chain(self.to.iter().cloned())
    }
}

/// One StatefulSet, with its identity.
struct Set<'o> {
    name: String,
    /// `None`: an account of its own.
    account: Option<&'o str>,
}

impl Set<'_> {
    fn check(&self) -> Result<(), InvalidFacts> {
        match self.account {
            Some(account) if !names::is_label(account) || self.name.len() > LONGEST_SET => {
                Err(InvalidFacts::ServiceAccount {
                    found: account.to_owned(),
                    most: LONGEST_SET - OUTBOUND.len() - 1,
                })
            }
            _ => Ok(()),
        }
    }

    fn service_account(&self) -> &str {
        self.account.unwrap_or(OUTBOUND)
    }

    fn labels(&self) -> Value {
        let mut labels = names::labels(OUTBOUND);
        labels[names::INSTANCE] = json!(self.name);
        labels
    }

    fn metadata(&self, namespace: &str) -> Value {
        json!({"name": self.name, "namespace": namespace, "labels": self.labels()})
    }

    fn role(&self, namespace: &str) -> Object {
        let pod = names::outbound_pod(&self.name);
        let whom = match self.account {
            None => "For those who may connect from here into the cluster.".to_owned(),
            Some(account) => format!(
                "For those who may connect into the cluster as the service account `{account}`: whatever a policy allows that identity, they may do."
            ),
        };
        role(
            &format!(
                "{whom} Bind it beside the roles of developers:\n\
                 \n  kubectl -n {namespace} create rolebinding {name} --role={name} --group=GROUP",
                name = self.name
            ),
            "Role",
            self.metadata(namespace),
            vec![
                rule_by_name(
                    "Whether it is there, of which version, and which relays it asks.",
                    "apps",
                    "statefulsets",
                    &[&self.name],
                    &["get"],
                ),
                rule_by_name("Is it up?", "", "pods", &[&pod], &["get"]),
                rule_by_name(
                    "The connection itself, to this pod and no other. A port-forward is a GET up to Kubernetes 1.34; from 1.35 on it asks for `create` as well.",
                    "",
                    "pods/portforward",
                    &[&pod],
                    &["get", "create"],
                ),
            ],
        )
    }

    fn stateful_set(&self, install: &ClusterInstall, outbound: &Outbound) -> Object {
        let namespace = &outbound.namespace;
        let mut metadata = self.metadata(namespace);
        metadata["labels"]["app.kubernetes.io/version"] = json!(install.version);
        let settings = serde_json::to_string(&outbound.settings(&install.mesh));
        metadata["annotations"] =
            json!({names::OUTBOUND_SETTINGS: settings.expect("text and numbers")});
        let selector = json!({
            "app.kubernetes.io/name": OUTBOUND,
            names::INSTANCE: self.name,
        });
        let mut labels = self.labels();
        labels["sidecar.istio.io/inject"] = json!("true");
        let annotations = json!({
            "prometheus.io/scrape": "true",
            "prometheus.io/port": OUTBOUND_PORT.to_string(),
            "prometheus.io/path": "/metrics",
            "traffic.sidecar.istio.io/excludeOutboundPorts": DNS_PORT.to_string(),
        });
        let spec = pods::spec(
            install,
            self.service_account(),
            container(install, outbound),
        );
        let template =
            json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec});
        let identity = match self.account {
            None => {
                "The mesh sees the identity `injector-outbound`, not the developer's.".to_owned()
            }
            Some(account) => format!(
                "The mesh sees the identity `{account}`, as it does of the workload: every policy that admits the workload admits developers with the Role {}.",
                self.name
            ),
        };
        let object = Object::new(
            format!(
                "The in-cluster end of developers' connections from `{namespace}`. {identity} It keeps no state and holds no credentials. One replica: a Role can name its pod."
            ),
            json!({
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": metadata,
                "spec": {
                    "replicas": 1,
                    "serviceName": OUTBOUND,
                    "selector": {"matchLabels": selector},
                    "template": template,
                },
            }),
        );
        noted(object)
    }
}

fn noted(object: Object) -> Object {
    let annotations = "/spec/template/metadata/annotations";
    let spec = "/spec/template/spec";
    object
        .note("/metadata/labels/app.kubernetes.io~1version", "Commands compare it with their own.")
        .note(
            "/metadata/annotations/injector.dev~1outbound",
            "What the operator said, remembered for the next `injector install`; and where the relays are, for `injector forward`.",
        )
        .note(
            format!("{annotations}/prometheus.io~1scrape"),
            "Istio's agent scrapes it on its loopback and shows its metrics with the sidecar's own, on port 15020.",
        )
        .note(
            format!("{annotations}/traffic.sidecar.istio.io~1excludeOutboundPorts"),
            "DNS over TCP, for answers that are too large for UDP: the Sidecar leaves out the cluster's DNS.",
        )
        .note(
            format!("{spec}/automountServiceAccountToken"),
            "It never talks to the API server.",
        )
        .note(
            format!("{spec}/containers/0/args"),
            "It listens on the pod's loopback: only a port-forward reaches it, so the kubelet probes nothing. What is never dialled, besides loopback, link-local and the like: \
             the API server, and the namespaces of relays and istiod.",
        )
        .note(
            format!("{spec}/containers/0/resources"),
            "No limit: it bounds what it holds for each developer.",
        )
        .note(
            format!("{spec}/containers/0/securityContext"),
            "On the container, not the pod: Istio's own containers bring theirs.",
        )
}

fn container(install: &ClusterInstall, outbound: &Outbound) -> Value {
    let mesh = &install.mesh;
    let domain = &mesh.cluster_domain;
    let mut args = vec![
        "outbound".to_owned(),
        "--listen".to_owned(),
        format!("127.0.0.1:{OUTBOUND_PORT}"),
        "--domain".to_owned(),
        domain.clone(),
    ];
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    // Full names end with a dot: they are in no search list.
    for replica in 0..mesh.relay_replicas {
        add(
            "--relay",
            format!("{}.:{PRESENCE_PORT}", mesh.relay_host(replica)),
        );
    }
    for reach in outbound.reach() {
        add("--to", reach.rule(domain));
    }
    for never in never(install) {
        add("--never", never);
    }
    json!({
        "name": "outbound",
        "image": install.image,
        "command": ["/injector"],
        "args": args,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": pods::container_security(),
    })
}

/// The API server by its variable, which needs no DNS, and by its name, which has both families. Relays and istiod by their names also where an address was found by another one.
fn never(install: &ClusterInstall) -> Vec<String> {
    let mesh = &install.mesh;
    let Mesh {
        namespace,
        root_namespace,
        cluster_domain: domain,
        ..
    } = mesh;
    let mut never = vec![
        "$(KUBERNETES_SERVICE_HOST)".to_owned(),
        format!("kubernetes.default.svc.{domain}."),
        format!("*.{namespace}.svc.{domain}"),
        format!("{RELAY}.{namespace}.svc.{domain}."),
    ];
    never.extend((0..mesh.relay_replicas).map(|replica| format!("{}.", mesh.relay_host(replica))));
    never.push(format!("*.{root_namespace}.svc.{domain}"));
    never.push(format!("istiod.{root_namespace}.svc.{domain}."));
    let revision = install.revision.iter();
    never.extend(
        revision.map(|revision| format!("istiod-{revision}.{root_namespace}.svc.{domain}.")),
    );
    never
}

fn service_account(namespace: &str) -> Object {
    Object::new(
        format!(
            "The identity of developers' connections from `{namespace}`: your AuthorizationPolicies admit or refuse it. No role is bound to it."
        ),
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": names::metadata(OUTBOUND, namespace, OUTBOUND),
            "automountServiceAccountToken": false,
        }),
    )
}

fn presence_policy(mesh: &Mesh, outbound: &Outbound, sets: &[Set<'_>]) -> Object {
    let namespace = &outbound.namespace;
    let principals: Vec<String> = sets
        .iter()
        .map(|set| format!("*/ns/{namespace}/sa/{}", set.service_account()))
        .collect();
    Object::new(
        format!(
            "Beside the relays: lets the pods of `{namespace}` ask a relay whether a tunnel is up, and nothing else."
        ),
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": names::metadata(&names::outbound_presence(namespace), &mesh.namespace, OUTBOUND),
            "spec": {
                "selector": {"matchLabels": names::selector(RELAY)},
                "action": "ALLOW",
                "rules": [{
                    "from": [{"source": {"principals": principals}}],
                    "to": [{"operation": {"ports": [PRESENCE_PORT.to_string()]}}],
                }],
            },
        }),
    )
}

fn network_policy(mesh: &Mesh, outbound: &Outbound) -> Object {
    let tcp = |port: u16| json!([{"protocol": "TCP", "port": port}]);
    let namespace = |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let mut relays = namespace(&mesh.namespace);
    relays["podSelector"] = json!({"matchLabels": names::selector(RELAY)});
    let reached = distinct(outbound.reach().map(|reach| reach.namespace));
    let reached: Vec<Value> = reached.iter().map(|name| namespace(name)).collect();
    Object::new(
        "What the pods may reach, a second time, where your CNI enforces it: pods of the allowed namespaces. So neither nodes nor the API server, whatever a Service says.",
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": names::metadata(OUTBOUND, &outbound.namespace, OUTBOUND),
            "spec": {
                "podSelector": {"matchLabels": names::selector(OUTBOUND)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"namespaceSelector": {}}], "ports": tcp(MERGED_METRICS_PORT)}],
                "egress": [
                    {"ports": [{"protocol": "UDP", "port": DNS_PORT}, {"protocol": "TCP", "port": DNS_PORT}]},
                    {"to": [namespace(&mesh.root_namespace)], "ports": tcp(ISTIOD_PORT)},
                    {"to": [relays], "ports": tcp(PRESENCE_PORT)},
                    {"to": reached},
                ],
            },
        }),
    )
    .note("/spec/ingress", "Metrics. A port-forward arrives on the pod's loopback, past every network policy.")
    .note("/spec/egress/0", "DNS, wherever it is.")
    .note("/spec/egress/1", "The sidecar's configuration and certificates.")
    .note("/spec/egress/2", "Whether a tunnel is up.")
    .note("/spec/egress/3", "Pods, by namespace: a network policy knows no Services.")
}

fn sidecar(mesh: &Mesh, outbound: &Outbound) -> Object {
    let domain = &mesh.cluster_domain;
    let relays: Vec<String> = (0..mesh.relay_replicas)
        .map(|replica| format!("{}/{}", mesh.namespace, mesh.relay_host(replica)))
        .collect();
    let hosts = distinct(outbound.reach().map(|reach| reach.hosts(domain)));
    Object::new(
        "What the pods' own sidecars know, and so can reach: a sidecar routes plain HTTP by its `Host` header, wherever it was sent. Without this, `Host` could name any Service of the mesh.",
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "Sidecar",
            "metadata": names::metadata(OUTBOUND, &outbound.namespace, OUTBOUND),
            "spec": {
                "workloadSelector": {"labels": names::selector(OUTBOUND)},
                "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
                "egress": [
                    {"port": {"number": PRESENCE_PORT, "protocol": "TCP", "name": "tcp-presence"}, "hosts": relays},
                    {"hosts": hosts},
                ],
            },
        }),
    )
    .note("/spec/workloadSelector", "These pods: it wins over a Sidecar of the namespace, and concerns no other pod.")
    .note("/spec/outboundTrafficPolicy", "No address that is no Service's: neither nodes, nor pods by their addresses, unless a headless Service has them.")
    .note("/spec/egress/0", "The relays by this port alone: not by those that take requests.")
}

fn governing_service(namespace: &str) -> Object {
    Object::new(
        "What a StatefulSet needs for its pods' names. It has no ports, so it makes no listener and no cluster in any sidecar.",
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": names::metadata(OUTBOUND, namespace, OUTBOUND),
            "spec": {"clusterIP": "None", "selector": names::selector(OUTBOUND)},
        }),
    )
}

/// In their order.
fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut distinct = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}

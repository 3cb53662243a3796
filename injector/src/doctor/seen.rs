//! The objects that the checks look at. A question that is not answered stays a question; the others go on.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, Kind, kind};
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::manifest::istio::{self, names};
use crate::operator::workloads::kind_and_name;
use crate::prepare;

/// An answer of the API server, or why there is none.
pub type Answer<T> = std::result::Result<T, ClusterError>;

/// The cluster part.
#[derive(Debug)]
pub struct Installation {
    /// The relays' StatefulSet.
    pub relay: Answer<Option<Value>>,
    /// The module server's Deployment.
    pub module: Answer<Option<Value>>,
    /// The admission policies of ours.
    pub policies: Answer<Vec<Value>>,
    /// Is there such a thing as a WasmPlugin?
    pub istio: Answer<Vec<Value>>,
}

impl Installation {
    /// Asks.
    pub async fn read(cluster: &Cluster, namespace: &str) -> Self {
        let within = Some(namespace);
        let ours = Some(crate::operator::OURS);
        let (relay, module, policies, istio) = tokio::join!(
            cluster.get(&kind::STATEFUL_SET, within, names::RELAY),
            cluster.get(&kind::DEPLOYMENT, within, names::MODULE),
            cluster.list(&kind::ADMISSION_POLICY_BINDING, None, ours),
            cluster.list(&kind::WASM_PLUGIN, Some(cluster.namespace()), ours),
        );
        Self {
            relay,
            module,
            policies,
            istio,
        }
    }
}

/// A workload that somebody wants to intercept.
#[derive(Debug)]
pub struct Target {
    /// Its namespace's name.
    pub namespace: String,
    /// Its kind.
    pub kind: istio::Kind,
    /// As the API server has it.
    pub object: Value,
    /// The Services of its namespace.
    pub services: Vec<Value>,
    /// The pods of its namespace.
    pub pods: Vec<Value>,
    /// The `Sidecar` resources of its namespace.
    pub sidecars: Answer<Vec<Value>>,
    /// Its namespace.
    pub around: Value,
    /// Its WasmPlugin.
    pub plugin: Answer<Option<Value>>,
    /// The EnvoyFilters of its namespace.
    pub filters: Answer<Vec<Value>>,
    /// The DestinationRules of its namespace.
    pub rules: Answer<Vec<Value>>,
}

impl Target {
    /// Finds it by what a developer calls it: a Service, else a workload.
    pub async fn read(cluster: &Cluster, target: &str) -> Result<Self> {
        let namespace = cluster.namespace().to_owned();
        let within = Some(namespace.as_str());
        let (deployments, stateful_sets, daemon_sets, services, pods, around) = tokio::try_join!(
            cluster.list(&kind::DEPLOYMENT, within, None),
            cluster.list(&kind::STATEFUL_SET, within, None),
            cluster.list(&kind::DAEMON_SET, within, None),
            cluster.list(&kind::SERVICE, within, None),
            cluster.list(&kind::POD, within, None),
            cluster.get(&kind::NAMESPACE, None, &namespace),
        )
        .map_err(Failure::from)?;
        let of = |kind, list: Vec<Value>| list.into_iter().map(move |object| (kind, object));
        let workloads: Vec<(istio::Kind, Value)> = of(istio::Kind::Deployment, deployments)
            .chain(of(istio::Kind::StatefulSet, stateful_sets))
            .chain(of(istio::Kind::DaemonSet, daemon_sets))
            .collect();
        let (kind, object) = meant(target, &workloads, &services)?.ok_or_else(|| {
            Failure::failed(
                format!("namespace {namespace}: no service or workload `{target}`"),
                format!(
                    "kubectl get services,deployments,statefulsets,daemonsets -n {}",
                    quote(&namespace)
                ),
            )
        })?;
        let name = format!("injector-{}-{}", kind.lower_case(), name_of(&object));
        let (plugin, filters, rules, sidecars) = tokio::join!(
            cluster.get(&kind::WASM_PLUGIN, within, &name),
            cluster.list(&kind::ENVOY_FILTER, within, None),
            cluster.list(&kind::DESTINATION_RULE, within, None),
            cluster.list(&kind::SIDECAR, within, None),
        );
        Ok(Self {
            kind,
            object,
            services,
            pods,
            sidecars,
            around: around.unwrap_or_default(),
            plugin,
            filters,
            rules,
            namespace,
        })
    }

    /// `Deployment/orders`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.name(), name_of(&self.object))
    }

    /// The labels of its pods.
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels(self.object.pointer("/spec/template/metadata/labels"))
    }

    /// The command that prepares it.
    pub fn command(&self) -> String {
        format!(
            "injector install -n {} --workload {}/{}",
            quote(&self.namespace),
            self.kind.lower_case(),
            quote(name_of(&self.object))
        )
    }

    /// What the installer would find out about it.
    pub fn facts(&self) -> std::result::Result<prepare::Facts, prepare::Unpreparable> {
        let around = prepare::Around {
            namespace: &self.around,
            services: &self.services,
            pods: &self.pods,
            sidecars: self.sidecars.as_deref().unwrap_or_default(),
        };
        prepare::facts(self.kind, &self.object, around, &[])
    }
}

/// A Service leads to the workload whose pods it selects.
fn meant(
    target: &str,
    workloads: &[(istio::Kind, Value)],
    services: &[Value],
) -> Result<Option<(istio::Kind, Value)>> {
    let bare = target
        .strip_prefix("svc/")
        .or(target.strip_prefix("service/"));
    let service = services
        .iter()
        .find(|service| name_of(service) == bare.unwrap_or(target));
    if let Some(service) = service {
        let selector = labels(service.pointer("/spec/selector"));
        let selects = |(_, workload): &&(istio::Kind, Value)| {
            let own = labels(workload.pointer("/spec/template/metadata/labels"));
            !selector.is_empty() && prepare::contains(&own, &selector)
        };
        if let Some(found) = workloads.iter().find(selects) {
            return Ok(Some(found.clone()));
        }
    }
    let (kind, name) = match bare {
        Some(_) => return Ok(None),
        None => kind_and_name(target)?,
    };
    let is_meant = |(own, object): &&(istio::Kind, Value)| {
        name_of(object) == name && kind.is_none_or(|kind| kind == *own)
    };
    Ok(workloads.iter().find(is_meant).cloned())
}

/// What others wrote that reaches these requests.
#[derive(Debug)]
pub struct Surroundings {
    /// The EnvoyFilters of the mesh's root namespace.
    pub root_filters: Answer<Vec<Value>>,
    /// The `Sidecar` resources of the mesh's root namespace.
    pub root_sidecars: Answer<Vec<Value>>,
    /// The AuthorizationPolicies beside the relays.
    pub authorization: Answer<Vec<Value>>,
    /// The PeerAuthentications beside the relays.
    pub peers: Answer<Vec<Value>>,
}

impl Surroundings {
    /// Asks; `root` is the mesh's root namespace.
    pub async fn read(cluster: &Cluster, root: &str, relay_namespace: &str) -> Self {
        let list = |kind: &'static Kind, namespace| cluster.list(kind, Some(namespace), None);
        let (root_filters, root_sidecars, authorization, peers) = tokio::join!(
            list(&kind::ENVOY_FILTER, root),
            list(&kind::SIDECAR, root),
            list(&kind::AUTHORIZATION_POLICY, relay_namespace),
            list(&kind::PEER_AUTHENTICATION, relay_namespace),
        );
        Self {
            root_filters,
            root_sidecars,
            authorization,
            peers,
        }
    }
}

/// `metadata.name`.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Labels or a selector as a map.
pub fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    let value = value.cloned().unwrap_or_default();
    serde_json::from_value(value).unwrap_or_default()
}

/// Is it ours?
pub fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][names::MANAGED_BY] == names::MANAGER
}

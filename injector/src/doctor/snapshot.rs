//! The objects that the checks look at. A question that is not answered stays a question; the others go on.

use std::collections::BTreeMap;

use intercept_kube::intercepts;
use intercept_kube::prepare;
use intercept_kube::resolve::{self, Listed, Resolved};
use intercept_kube::{Cluster, ClusterError, Kind, kind};
use intercept_manifest::istio::names;
use intercept_manifest::istio::preparation::{self, Preparation};
use intercept_manifest::istio::resource::Intercept;
use serde_json::Value;

use crate::error::Result;
use crate::install::OURS;
use crate::install_args::{self, InstallArgs};
use crate::shell::context_flags;

pub use intercept_kube::resolve::name_of;

/// An answer of the API server, or why there is none.
pub type Answer<T> = std::result::Result<T, ClusterError>;

/// The cluster part.
#[derive(Debug)]
pub struct Installation {
    /// The relays' StatefulSet.
    pub relay: Answer<Option<Value>>,
    /// The relays' Services.
    pub services: Answer<Vec<Value>>,
    /// The module server's Deployment.
    pub module: Answer<Option<Value>>,
    /// The controller's Deployment.
    pub controller: Answer<Option<Value>>,
    /// The admission policies of ours.
    pub policies: Answer<Vec<Value>>,
    /// What puts them into force.
    pub bindings: Answer<Vec<Value>>,
    /// Is there such a thing as a WasmPlugin?
    pub istio: Answer<Vec<Value>>,
    /// The namespace of the relays.
    pub around: Answer<Option<Value>>,
}

impl Installation {
    /// Asks.
    pub async fn read(cluster: &Cluster, namespace: &str) -> Self {
        let within = Some(namespace);
        let ours = Some(OURS);
        let (relay, services, module, controller, policies, bindings, istio, around) = tokio::join!(
            cluster.get(&kind::STATEFUL_SET, within, names::RELAY),
            cluster.list(&kind::SERVICE, within, ours),
            cluster.get(&kind::DEPLOYMENT, within, names::MODULE),
            cluster.get(&kind::DEPLOYMENT, within, names::CONTROLLER),
            cluster.list(&kind::ADMISSION_POLICY, None, ours),
            cluster.list(&kind::ADMISSION_POLICY_BINDING, None, ours),
            cluster.list(&kind::WASM_PLUGIN, Some(cluster.namespace()), ours),
            cluster.get(&kind::NAMESPACE, None, namespace),
        );
        Self {
            relay,
            services,
            module,
            controller,
            policies,
            bindings,
            istio,
            around,
        }
    }

    /// How many relays there are meant to be; one where that cannot be seen.
    pub fn replicas(&self) -> u16 {
        let relay = self.relay.as_ref().ok().and_then(Option::as_ref);
        let replicas = relay.and_then(|relay| relay.pointer("/spec/replicas")?.as_u64());
        replicas
            .and_then(|replicas| u16::try_from(replicas).ok())
            .unwrap_or(1)
    }

    /// The mesh's revision that the relays belong to, where it can be seen.
    pub fn revision(&self) -> Option<String> {
        let namespace = self.around.as_ref().ok()?.as_ref()?;
        let revision = namespace.pointer("/metadata/labels/istio.io~1rev")?;
        revision.as_str().map(str::to_owned)
    }
}

/// What belongs to the intercepts of a namespace.
#[derive(Debug)]
pub struct Intercepts {
    /// The namespace.
    pub namespace: String,
    /// What chooses it in a command that is shown.
    pub place: String,
    /// The WasmPlugins of ours.
    pub plugins: Answer<Vec<Value>>,
    /// The Intercepts.
    pub all: Answer<Vec<Intercept>>,
}

impl Intercepts {
    /// Asks.
    pub async fn read(cluster: &Cluster) -> Self {
        let within = Some(cluster.namespace());
        let ours = Some(OURS);
        let (plugins, all) = tokio::join!(
            cluster.list(&kind::WASM_PLUGIN, within, ours),
            intercepts::Intercepts::list(cluster, within),
        );
        Self {
            namespace: cluster.namespace().to_owned(),
            place: context_flags(&cluster.flags(within)),
            plugins,
            all,
        }
    }
}

/// A workload that is to be intercepted.
#[derive(Debug)]
pub struct Target {
    /// Its namespace's name.
    pub namespace: String,
    /// Where the relays are looked for.
    pub relay_namespace: String,
    /// The workload.
    pub found: Resolved,
    /// The Services of its namespace.
    pub services: Vec<Value>,
    /// The pods of its namespace.
    pub pods: Vec<Value>,
    /// The `Sidecar` resources of its namespace.
    pub sidecars: Answer<Vec<Value>>,
    /// Its namespace.
    pub around: Answer<Option<Value>>,
    /// Its WasmPlugin.
    pub plugin: Answer<Option<Value>>,
    /// The EnvoyFilters of its namespace.
    pub filters: Answer<Vec<Value>>,
    /// The DestinationRules of its namespace.
    pub rules: Answer<Vec<Value>>,
    /// The AuthorizationPolicies of its namespace.
    pub authorization: Answer<Vec<Value>>,
    /// The PeerAuthentications of its namespace.
    pub peers: Answer<Vec<Value>>,
}

impl Target {
    /// Finds it as every other command does.
    pub async fn read(cluster: &Cluster, relay_namespace: &str, target: &str) -> Result<Self> {
        let wanted = resolve::wanted(target)?;
        let namespace = cluster.namespace().to_owned();
        let within = Some(namespace.as_str());
        let (listed, pods) = tokio::try_join!(
            Listed::read(cluster, &namespace, None),
            cluster.list(&kind::POD, within, None),
        )?;
        let found = resolve::find(wanted, &listed)?;
        let plugin = plugin_name(&found);
        let list = |kind: &'static Kind| cluster.list(kind, within, None);
        let (around, plugin, filters, rules, sidecars, authorization, peers) = tokio::join!(
            cluster.get(&kind::NAMESPACE, None, &namespace),
            cluster.get(&kind::WASM_PLUGIN, within, &plugin),
            list(&kind::ENVOY_FILTER),
            list(&kind::DESTINATION_RULE),
            list(&kind::SIDECAR),
            list(&kind::AUTHORIZATION_POLICY),
            list(&kind::PEER_AUTHENTICATION),
        );
        Ok(Self {
            relay_namespace: relay_namespace.to_owned(),
            found,
            services: listed.services,
            pods,
            sidecars,
            around,
            plugin,
            filters,
            rules,
            authorization,
            peers,
            namespace,
        })
    }

    /// `Deployment/orders`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.found.kind.name(), self.found.name)
    }

    /// The name of its WasmPlugin and of its gate, whether they are there or not.
    pub fn plugin_name(&self) -> String {
        plugin_name(&self.found)
    }

    /// The labels of its pods.
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels(self.found.template().pointer("/metadata/labels"))
    }

    /// Its pods, those that are going away left out.
    pub fn own_pods(&self) -> impl Iterator<Item = &Value> {
        let own = self.labels();
        self.pods.iter().filter(move |pod| {
            let labels = labels(pod.pointer("/metadata/labels"));
            prepare::contains(&labels, &own) && !intercept_kube::pods::is_leaving(pod)
        })
    }

    /// The command that prepares it, with the ports and limits that it has.
    pub fn command(&self) -> String {
        self.prepare(&self.kept())
    }

    /// The same for all ports that speak HTTP.
    pub fn command_for_all_ports(&self) -> String {
        self.prepare(&InstallArgs {
            ports: Vec::new(),
            ..self.kept()
        })
    }

    fn prepare(&self, kept: &InstallArgs) -> String {
        install_args::prepare(&self.namespace, &self.found.label(), kept)
    }

    fn kept(&self) -> InstallArgs {
        let plugin = self.plugin.as_ref().ok().and_then(Option::as_ref);
        let plugin = plugin.unwrap_or(&Value::Null);
        InstallArgs::of(plugin, &self.relay_namespace)
    }

    /// Its gate, where there is one and the caller may look.
    pub fn gate(&self) -> Option<&Value> {
        let name = self.plugin_name();
        let filters = self.filters.as_ref().ok()?;
        filters.iter().find(|filter| name_of(filter) == name)
    }

    /// What the operator said, where it can be read.
    pub fn prepared(&self) -> Option<Preparation> {
        let plugin = self.plugin.as_ref().ok()?.as_ref()?;
        Some(preparation::read(plugin).ok()??.preparation)
    }

    /// What the installer would find out about it.
    pub fn facts(&self) -> std::result::Result<prepare::Facts, prepare::Unpreparable> {
        let nothing = Value::Null;
        let around = prepare::Around {
            namespace: self
                .around
                .as_ref()
                .ok()
                .and_then(Option::as_ref)
                .unwrap_or(&nothing),
            services: &self.services,
            pods: &self.pods,
            sidecars: self.sidecars.as_deref().unwrap_or_default(),
        };
        prepare::facts(self.found.kind, &self.found.object, around, &[])
    }
}

fn plugin_name(found: &Resolved) -> String {
    names::of_workload(found.kind, &found.name)
}

/// What others wrote that reaches these requests.
#[derive(Debug)]
pub struct Surroundings {
    /// The EnvoyFilters of the mesh's root namespace.
    pub root_filters: Answer<Vec<Value>>,
    /// The `Sidecar` resources of the mesh's root namespace.
    pub root_sidecars: Answer<Vec<Value>>,
    /// The AuthorizationPolicies of the mesh's root namespace.
    pub root_authorization: Answer<Vec<Value>>,
    /// The PeerAuthentications of the mesh's root namespace.
    pub root_peers: Answer<Vec<Value>>,
    /// The AuthorizationPolicies beside the relays.
    pub authorization: Answer<Vec<Value>>,
    /// The PeerAuthentications beside the relays.
    pub peers: Answer<Vec<Value>>,
}

impl Surroundings {
    /// Asks; `root` is the mesh's root namespace.
    pub async fn read(cluster: &Cluster, root: &str, relay_namespace: &str) -> Self {
        let list = |kind: &'static Kind, namespace| cluster.list(kind, Some(namespace), None);
        let (filters, sidecars, root_authorization, root_peers, authorization, peers) = tokio::join!(
            list(&kind::ENVOY_FILTER, root),
            list(&kind::SIDECAR, root),
            list(&kind::AUTHORIZATION_POLICY, root),
            list(&kind::PEER_AUTHENTICATION, root),
            list(&kind::AUTHORIZATION_POLICY, relay_namespace),
            list(&kind::PEER_AUTHENTICATION, relay_namespace),
        );
        Self {
            root_filters: filters,
            root_sidecars: sidecars,
            root_authorization,
            root_peers,
            authorization,
            peers,
        }
    }
}

/// A text; empty where there is none.
pub fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
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

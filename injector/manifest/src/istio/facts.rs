//! What has to be known about a cluster, a workload and the filter before anything can be rendered. Found out by others, checked here.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use intercept_core::Limits;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::invalid::InvalidFacts;
use super::kind::Kind;
use super::names;
use super::ports::{H2_PORT, HTTP_PORT};
use crate::facts::Protocol;

/// Where the cluster part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// The namespace of the relay and the module server, `injector-system` unless an operator chose another.
    pub namespace: String,
    /// The mesh's root namespace, usually `istio-system`: what is written there reaches every proxy of the mesh, so nothing of ours ever is.
    pub root_namespace: String,
    /// The end of every Service's name, usually `cluster.local`.
    pub cluster_domain: String,
    /// How many relays there are; each is a target of its own.
    pub relay_replicas: u16,
}

/// The program whose requests are intercepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The labels by which it selects its pods, all of them.
    pub selector: BTreeMap<String, String>,
    /// The ports that can be intercepted; at least one.
    pub ports: Vec<Port>,
}

/// One port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The container port, which is what Istio's `portNumber` and the filter's `destination.port` mean.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where the sidecar reaches the program: 127.0.0.1 and the number, unless a `Sidecar` resource says otherwise.
    pub app: SocketAddr,
    /// The Service ports that lead to it, the one by which Istio names it first. Empty for a port that no Service has.
    pub services: Vec<ServicePort>,
}

/// A Service's port that leads to a workload's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    /// The Service, in the workload's namespace.
    pub service: String,
    /// The Service's own port.
    pub port: u16,
}

/// What the installer writes into a workload's WasmPlugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The filter.
    pub module: Module,
    /// What the operator allows.
    pub limits: Limits,
}

/// The filter, as a sidecar's agent fetches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// `http://…`, `https://…` or `oci://…`. Not `file://`: with it, every edit of the plugin makes new VMs (measured).
    pub url: String,
    /// What Istio holds against it, 64 lower-case hexadecimal digits: of the module's bytes, with `oci://` of the image's manifest (`pkg/wasm/cache.go`).
    pub sha256: String,
}

impl Mesh {
    /// The Service name of one relay, as Istio knows it.
    pub fn relay_host(&self, replica: u16) -> String {
        format!(
            "{}.{}.svc.{}",
            names::relay_replica(replica),
            self.namespace,
            self.cluster_domain
        )
    }

    /// Istio's own cluster of one relay, so that mTLS is Istio's business. The relay has a port for each protocol: its sidecar must know what is spoken, or it takes all for opaque bytes.
    pub fn relay_cluster(&self, replica: u16, protocol: Protocol) -> String {
        let port = match protocol {
            Protocol::Http | Protocol::Auto => HTTP_PORT,
            Protocol::Http2 | Protocol::Grpc => H2_PORT,
        };
        format!("outbound|{port}||{}", self.relay_host(replica))
    }

    pub(super) fn check(&self) -> Result<(), InvalidFacts> {
        names::check_name("relay namespace", &self.namespace)?;
        names::check_name("cluster domain", &self.cluster_domain)?;
        if self.namespace == self.root_namespace {
            return Err(InvalidFacts::RootNamespace(self.namespace.clone()));
        }
        if self.relay_replicas == 0 {
            return Err(InvalidFacts::NoRelay);
        }
        Ok(())
    }

    pub(super) fn check_reach(&self, namespace: &str) -> Result<(), InvalidFacts> {
        self.check()?;
        names::check_name("namespace", namespace)?;
        if [&self.namespace, &self.root_namespace].contains(&&namespace.to_owned()) {
            return Err(InvalidFacts::NeverReached(namespace.to_owned()));
        }
        Ok(())
    }

    pub(super) fn check_namespace(&self, namespace: &str) -> Result<(), InvalidFacts> {
        self.check()?;
        names::check_name("namespace", namespace)?;
        if namespace == self.root_namespace {
            return Err(InvalidFacts::RootNamespace(namespace.to_owned()));
        }
        if namespace == self.namespace {
            return Err(InvalidFacts::RelayNamespace(namespace.to_owned()));
        }
        Ok(())
    }
}

impl Workload {
    /// `Deployment/orders`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.name(), self.name)
    }

    /// What its WasmPlugin and its gate are called.
    pub fn object_name(&self) -> String {
        names::of_workload(self.kind, &self.name)
    }

    /// `metadata` of an object that belongs to it.
    pub(super) fn metadata(&self, name: &str) -> Value {
        let mut metadata = names::metadata(name, &self.namespace, "injector-workload");
        metadata["annotations"] = json!({names::WORKLOAD: self.label()});
        metadata
    }

    pub(super) fn check(&self) -> Result<(), InvalidFacts> {
        names::check_name("workload", &self.object_name())?;
        if self.selector.is_empty() {
            return Err(InvalidFacts::NoSelector(self.label()));
        }
        if self.ports.is_empty() {
            return Err(InvalidFacts::NoPorts(self.label()));
        }
        for (index, port) in self.ports.iter().enumerate() {
            self.check_port(index, port)?;
        }
        Ok(())
    }

    fn check_port(&self, index: usize, port: &Port) -> Result<(), InvalidFacts> {
        let mut others = self.ports.iter().take(index);
        if port.number == 0 || others.any(|other| other.number == port.number) {
            return Err(InvalidFacts::Port {
                workload: self.label(),
                port: port.number,
            });
        }
        if !port.app.ip().is_loopback() {
            return Err(InvalidFacts::App {
                workload: self.label(),
                port: port.number,
                found: port.app,
            });
        }
        Ok(())
    }
}

impl Module {
    pub(super) fn check(&self) -> Result<(), InvalidFacts> {
        if !["http://", "https://", "oci://"]
            .iter()
            .any(|scheme| self.url.starts_with(scheme))
        {
            return Err(InvalidFacts::ModuleUrl(self.url.clone()));
        }
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_digit) {
            return Err(InvalidFacts::Sha256(self.sha256.clone()));
        }
        Ok(())
    }
}

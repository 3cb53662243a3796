//! What an operator prepared, read back from the gate that the installer wrote: the workload's ports and where the relays are. A developer needs no flag for any of it,
//! and an intercept's cluster cannot differ from what the gate has. Pure: an object in, facts out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::facts::{Mesh, Port, ServicePort, Workload};
use super::kind::Kind;
use super::names;
use super::ports::H2_PORT;
use crate::manifest::facts::Protocol;

/// The mesh's root namespace in a stock installation. The installer refused to write there; here it only completes the facts.
const ROOT_NAMESPACE: &str = "istio-system";

/// A workload that an operator prepared, and where its relays are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The cluster part.
    pub mesh: Mesh,
    /// The workload with the ports that can be intercepted.
    pub workload: Workload,
}

/// A gate that this build cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("EnvoyFilter {gate}: {what}")]
pub struct UnreadableGate {
    gate: String,
    what: String,
}

/// Reads the gate of a workload.
pub fn read(gate: &Value) -> Result<Prepared, UnreadableGate> {
    let unreadable = |what: &str| UnreadableGate {
        gate: text(gate, "/metadata/name").unwrap_or("?").to_owned(),
        what: what.to_owned(),
    };
    let (kind, name) = workload_of(gate)
        .ok_or_else(|| unreadable("expected the annotation injector.dev/workload: KIND/NAME"))?;
    let relays = relays(gate);
    let first = relays
        .first()
        .ok_or_else(|| unreadable("expected a cluster `intercept|relay-N|PORT`"))?;
    let replicas = relays.iter().map(|relay| relay.replica).max().unwrap_or(0);
    let workload = Workload {
        kind,
        name: name.to_owned(),
        namespace: text(gate, "/metadata/namespace")
            .unwrap_or_default()
            .to_owned(),
        selector: selector(gate),
        ports: ports(gate, &relays),
    };
    if workload.ports.is_empty() {
        return Err(unreadable("expected a cluster `intercept-app|PORT`"));
    }
    Ok(Prepared {
        mesh: Mesh {
            namespace: first.namespace.clone(),
            root_namespace: ROOT_NAMESPACE.to_owned(),
            cluster_domain: first.domain.clone(),
            relay_replicas: replicas.saturating_add(1),
        },
        workload,
    })
}

/// Kind and name of the workload that an object of ours belongs to.
pub fn workload_of(object: &Value) -> Option<(Kind, &str)> {
    let annotations = object.pointer("/metadata/annotations")?;
    let (kind, name) = annotations
        .get(names::WORKLOAD)?
        .as_str()?
        .split_once('/')?;
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    let kind = kinds.into_iter().find(|known| known.name() == kind)?;
    Some((kind, name))
}

/// The relay at which the tunnel of an intercept's own cluster ends: its namespace and number.
pub fn relay_of(filter: &Value) -> Option<(String, u16)> {
    let cluster = clusters(filter).next()?;
    let relay = Relay::read(cluster)?;
    Some((relay.namespace, relay.replica))
}

/// The end of the lease as it stands on an intercept's own EnvoyFilter, in seconds since the epoch.
pub fn lease_of(filter: &Value) -> Option<u64> {
    let expires = &filter["metadata"]["annotations"][names::EXPIRES];
    expires.as_str()?.parse().ok()
}

/// Does this EnvoyFilter have the cluster?
pub fn has_cluster(filter: &Value, name: &str) -> bool {
    clusters(filter).any(|cluster| cluster["name"] == name)
}

fn selector(gate: &Value) -> BTreeMap<String, String> {
    let labels = gate
        .pointer("/spec/workloadSelector/labels")
        .and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn clusters(filter: &Value) -> impl Iterator<Item = &Value> {
    let patches = filter
        .pointer("/spec/configPatches")
        .and_then(Value::as_array);
    let patches = patches.into_iter().flatten();
    patches
        .filter(|patch| text(patch, "/applyTo") == Some("CLUSTER"))
        .filter_map(|patch| patch.pointer("/patch/value"))
}

/// One shared cluster of the gate: a relay, for a port.
struct Relay {
    replica: u16,
    namespace: String,
    domain: String,
    /// Of its data ports, the one that is used.
    data_port: u16,
    /// The workload's port; none in an intercept's own cluster.
    port: Option<u16>,
}

fn relays(gate: &Value) -> Vec<Relay> {
    clusters(gate).filter_map(Relay::read).collect()
}

impl Relay {
    /// `outbound|8080||injector-relay-0.injector-system.svc.cluster.local`, a member of `intercept|relay-0|8080`.
    fn read(cluster: &Value) -> Option<Self> {
        let member = text(cluster, "/cluster_type/typed_config/clusters/0")?;
        let (data_port, host) = member.strip_prefix("outbound|")?.split_once("||")?;
        let (pod, rest) = host.split_once('.')?;
        let (namespace, domain) = rest.split_once(".svc.")?;
        let replica = pod.strip_prefix(names::RELAY)?.strip_prefix('-')?;
        let port = text(cluster, "/name")?
            .rsplit_once('|')
            .and_then(|(_, port)| port.parse().ok());
        Some(Self {
            replica: replica.parse().ok()?,
            namespace: namespace.to_owned(),
            domain: domain.to_owned(),
            data_port: data_port.parse().ok()?,
            port,
        })
    }
}

fn ports(gate: &Value, relays: &[Relay]) -> Vec<Port> {
    let apps = clusters(gate).filter_map(|cluster| {
        let number = text(cluster, "/name")?
            .strip_prefix("intercept-app|")?
            .parse()
            .ok()?;
        let relay = relays.iter().find(|relay| relay.port == Some(number))?;
        Some(Port {
            number,
            protocol: protocol(cluster, relay.data_port),
            app: app(cluster)?,
            services: services(gate, cluster, number),
        })
    });
    apps.collect()
}

fn app(cluster: &Value) -> Option<SocketAddr> {
    let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    let address = cluster.pointer(address)?;
    let port = address.get("port_value")?.as_u64()?;
    let ip = address.get("address")?.as_str()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// Which of the relay's ports is used says whether it is HTTP/2; the app's cluster says whether it follows the client.
fn protocol(app: &Value, data_port: u16) -> Protocol {
    let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/use_downstream_protocol_config";
    match app.pointer(options) {
        _ if data_port == H2_PORT => Protocol::Http2,
        Some(_) => Protocol::Auto,
        None => Protocol::Http,
    }
}

/// The Services by which Istio's metrics name the port, with the port that stands in the route's span.
fn services(gate: &Value, app: &Value, number: u16) -> Vec<ServicePort> {
    let patches = gate
        .pointer("/spec/configPatches")
        .and_then(Value::as_array);
    let port = patches.into_iter().flatten().find_map(|patch| {
        let at = patch.pointer("/match/routeConfiguration/portNumber")?;
        let operation = text(patch, "/patch/value/decorator/operation")?;
        let port = operation.strip_suffix("/*")?.rsplit_once(':')?.1;
        (at.as_u64() == Some(u64::from(number))).then(|| port.parse().ok())?
    });
    let services = app
        .pointer("/metadata/filter_metadata/istio/services")
        .and_then(Value::as_array);
    let services = services.into_iter().flatten();
    services
        .filter_map(|service| {
            Some(ServicePort {
                service: service.get("name")?.as_str()?.to_owned(),
                port: port.unwrap_or(number),
            })
        })
        .collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer)?.as_str()
}

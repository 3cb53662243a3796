//! A workload's ports as Services lead to them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use intercept_manifest::istio;
use k8s_openapi::api::core::v1::{PodSpec, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::protocol::{Spoken, spoken};

/// A Service that selects the workload's pods.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// When it was made, as the API server writes it: of several Services the oldest one tells Istio what a port speaks.
    pub created: String,
    /// Its `spec`.
    pub spec: ServiceSpec,
}

/// A port that Services lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The container port.
    pub number: u16,
    /// What is spoken on it.
    pub spoken: Spoken,
    /// Where the sidecar reaches the program.
    pub app: SocketAddr,
    /// The Services' ports that lead to it, the one by which Istio names it first.
    pub services: Vec<istio::ServicePort>,
    /// What people may call it: the names and numbers of Service ports, then the container port's.
    pub names: Vec<String>,
}

impl Offered {
    /// `8080 (http, 80)`.
    pub fn label(&self) -> String {
        let own = self.number.to_string();
        let others: Vec<&str> = self
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| *name != own)
            .collect();
        match others.as_slice() {
            [] => own,
            others => format!("{own} ({})", others.join(", ")),
        }
    }
}

/// All ports that the Services lead to, by number. A port whose name no container has leads nowhere.
pub fn offered(pod: &PodSpec, services: &[Service]) -> Vec<Offered> {
    let mut services: Vec<&Service> = services.iter().collect();
    services.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
    let mut ports: BTreeMap<u16, Offered> = BTreeMap::new();
    for service in services {
        for port in service.spec.ports.iter().flatten() {
            let Some(number) = target(pod, port) else {
                continue;
            };
            let offered = ports.entry(number).or_insert_with(|| Offered {
                number,
                spoken: spoken_on(port),
                app: SocketAddr::from((Ipv4Addr::LOCALHOST, number)),
                services: Vec::new(),
                names: Vec::new(),
            });
            add(offered, &service.name, port);
        }
    }
    for port in ports.values_mut() {
        let own = container_ports(pod).filter(|(_, number)| *number == port.number);
        let own: Vec<String> = own
            .filter_map(|(name, _)| name.map(str::to_owned))
            .collect();
        port.names.extend(own);
        port.names.push(port.number.to_string());
        let mut seen = Vec::new();
        port.names.retain(|name| {
            let is_new = !seen.contains(name);
            seen.push(name.clone());
            is_new
        });
    }
    ports.into_values().collect()
}

fn add(offered: &mut Offered, service: &str, port: &ServicePort) {
    offered.names.extend(port.name.clone());
    offered.names.push(port.port.to_string());
    if let Ok(number) = u16::try_from(port.port) {
        offered.services.push(istio::ServicePort {
            service: service.to_owned(),
            port: number,
        });
    }
}

/// What a Service's port speaks.
fn spoken_on(port: &ServicePort) -> Spoken {
    spoken(
        port.port,
        port.name.as_deref(),
        port.protocol.as_deref(),
        port.app_protocol.as_deref(),
    )
}

/// The container port that a Service's port leads to.
fn target(pod: &PodSpec, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => container_ports(pod)
            .find(|(own, _)| *own == Some(name))
            .map(|(_, number)| number),
    }
}

/// Names and numbers. Native sidecars, which are init containers, have ports as well.
fn container_ports(pod: &PodSpec) -> impl Iterator<Item = (Option<&str>, u16)> {
    let containers = pod
        .containers
        .iter()
        .chain(pod.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some((
                port.name.as_deref(),
                u16::try_from(port.container_port).ok()?,
            ))
        })
}

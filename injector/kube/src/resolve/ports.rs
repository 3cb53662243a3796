//! By which words a container port of a workload can be meant: a Service port's, else its own. Pure.

use serde_json::Value;

use super::{Resolved, name_of};

/// By which words a container port can be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortNames {
    /// The container port.
    pub number: u16,
    /// Names and numbers of the Service ports that lead to it, and the Service's own name.
    pub services: Vec<ServiceName>,
    /// The container port's name.
    pub container: Option<String>,
}

/// A Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// The Service.
    pub service: String,
    /// The port's name, where it has one.
    pub name: Option<String>,
    /// The port's number.
    pub number: u16,
}

/// The words for this container port of the workload.
pub fn port_names(found: &Resolved, number: u16) -> PortNames {
    let services = found.services.iter().flat_map(|service| {
        let ports = service["spec"]["ports"].as_array();
        let ports = ports.into_iter().flatten();
        let ports = ports.filter(move |port| target_port(found, port) == Some(number));
        ports.map(|port| ServiceName {
            service: name_of(service).to_owned(),
            name: port["name"].as_str().map(str::to_owned),
            number: as_port(&port["port"]).unwrap_or_default(),
        })
    });
    let named = container_ports(found.template())
        .find(|port| as_port(&port["containerPort"]) == Some(number))
        .and_then(|port| port["name"].as_str());
    PortNames {
        number,
        services: services.collect(),
        container: named.map(str::to_owned),
    }
}

/// The container port that a word of `--port` means, whether or not it is prepared: a Service port's name or number, else a container port's.
pub fn meant(found: &Resolved, word: &str) -> Option<u16> {
    let service_ports = found
        .services
        .iter()
        .filter_map(|service| service["spec"]["ports"].as_array())
        .flatten();
    let by_service = |port: &&Value| is_called(port, &port["port"], word);
    let by_container = |port: &&Value| is_called(port, &port["containerPort"], word);
    let mut service_ports = service_ports.filter(by_service);
    service_ports
        .find_map(|port| target_port(found, port))
        .or_else(|| {
            let port = container_ports(found.template()).find(by_container)?;
            as_port(&port["containerPort"])
        })
}

fn is_called(port: &Value, number: &Value, word: &str) -> bool {
    port["name"].as_str() == Some(word)
        || as_port(number).is_some_and(|number| word.parse() == Ok(number))
}

/// Where a Service port leads to: a number, or a container port's name; its own number where nothing, or 0, is said.
fn target_port(found: &Resolved, port: &Value) -> Option<u16> {
    match &port["targetPort"] {
        Value::String(name) => container_ports(found.template())
            .find(|port| port["name"].as_str() == Some(name))
            .and_then(|port| as_port(&port["containerPort"])),
        number => as_port(number)
            .filter(|number| *number != 0)
            .or_else(|| as_port(&port["port"])),
    }
}

fn container_ports(template: &Value) -> impl Iterator<Item = &Value> {
    let containers = ["containers", "initContainers"];
    containers
        .into_iter()
        .filter_map(|list| template["spec"][list].as_array())
        .flatten()
        .filter_map(|container| container["ports"].as_array())
        .flatten()
}

fn as_port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

//! From what somebody calls TARGET to one workload and its ports: for developers, operators and the doctor alike. Lists of objects in, one workload or a reason out;
//! only [`Listed::read`] asks the API server.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, kind};
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::install_line::{self, Kept};
use crate::manifest::istio::Kind;

/// What TARGET asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'t> {
    /// A Service, else a workload of any kind.
    Named(&'t str),
    /// `svc/NAME`.
    Service(&'t str),
    /// `deploy/NAME`, `sts/NAME` or `ds/NAME`.
    Workload(Kind, &'t str),
}

/// Reads TARGET.
pub fn wanted(target: &str) -> Result<Wanted<'_>> {
    let Some((kind, name)) = target.split_once('/') else {
        return Ok(Wanted::Named(target));
    };
    let kind = kind.to_ascii_lowercase();
    let kind = kind.split_once('.').map_or(kind.as_str(), |(kind, _)| kind);
    match kind {
        "svc" | "service" | "services" => Ok(Wanted::Service(name)),
        "deploy" | "deployment" | "deployments" => Ok(Wanted::Workload(Kind::Deployment, name)),
        "sts" | "statefulset" | "statefulsets" => Ok(Wanted::Workload(Kind::StatefulSet, name)),
        "ds" | "daemonset" | "daemonsets" => Ok(Wanted::Workload(Kind::DaemonSet, name)),
        _ => Err(Failure::usage(
            format!("TARGET {target}: expected a name, or svc/, deploy/, sts/ or ds/ before it"),
            format!("say deploy/{name}, for instance"),
        )),
    }
}

/// What a namespace holds, as far as it can be a target; objects as the API server lists them.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Its name.
    pub namespace: String,
    /// Its Services.
    pub services: Vec<Value>,
    /// Its workloads, each with its kind.
    pub workloads: Vec<(Kind, Value)>,
}

impl Listed {
    /// Asks the API server; `labels`, as in kubectl's `--selector`, narrow the workloads.
    pub async fn read(
        cluster: &Cluster,
        namespace: &str,
        labels: Option<&str>,
    ) -> Result<Self, ClusterError> {
        let within = Some(namespace);
        let (services, deployments, stateful_sets, daemon_sets) = tokio::try_join!(
            cluster.list(&kind::SERVICE, within, None),
            cluster.list(&kind::DEPLOYMENT, within, labels),
            cluster.list(&kind::STATEFUL_SET, within, labels),
            cluster.list(&kind::DAEMON_SET, within, labels),
        )?;
        let lists = [
            (Kind::Deployment, deployments),
            (Kind::StatefulSet, stateful_sets),
            (Kind::DaemonSet, daemon_sets),
        ];
        let workloads = lists
            .into_iter()
            .flat_map(|(kind, list)| list.into_iter().map(move |object| (kind, object)));
        Ok(Self {
            namespace: namespace.to_owned(),
            services,
            workloads: workloads.collect(),
        })
    }
}

/// One workload, and the Services that lead to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// As the API server has it.
    pub object: Value,
    /// The Services by which it was meant: the one that was named, else all that select its pods.
    pub services: Vec<Value>,
}

impl Found {
    /// `spec.template`.
    pub fn template(&self) -> &Value {
        template(&self.object)
    }

    /// `deployment/orders`, as it can be named again.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.lower_case(), self.name)
    }

    /// The operator's command that prepares it.
    pub fn install_command(&self, namespace: &str) -> String {
        install_line::prepare(namespace, &self.label(), &Kept::default())
    }
}

/// Finds the workload. A bare name is a Service's that leads to one, else a workload's.
pub fn find(wanted: Wanted<'_>, listed: &Listed) -> Result<Found> {
    match wanted {
        Wanted::Workload(kind, name) => by_name(listed, name, Some(kind))?
            .ok_or_else(|| missing(listed, &format!("{}/{name}", kind.lower_case()))),
        Wanted::Service(name) => {
            by_service(listed, name)?.ok_or_else(|| missing(listed, &format!("svc/{name}")))
        }
        Wanted::Named(name) => match by_service(listed, name) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => by_name(listed, name, None)?.ok_or_else(|| missing(listed, name)),
            // A Service that leads nowhere does not hide a workload of its name.
            Err(leads_nowhere) => match by_name(listed, name, None)? {
                Some(found) if found.services.iter().all(|one| name_of(one) != name) => Ok(found),
                _ => Err(leads_nowhere),
            },
        },
    }
}

fn by_name(listed: &Listed, name: &str, kind: Option<Kind>) -> Result<Option<Found>> {
    let matching = listed
        .workloads
        .iter()
        .filter(|(of, object)| kind.is_none_or(|kind| kind == *of) && name_of(object) == name);
    let matching: Vec<_> = matching.collect();
    let Some((kind, workload)) = only(&matching, name)? else {
        return Ok(None);
    };
    let selects = |service: &&Value| selects(service, template(workload));
    let services = listed.services.iter().filter(selects).cloned().collect();
    Ok(Some(found(*kind, workload, services)))
}

fn by_service(listed: &Listed, name: &str) -> Result<Option<Found>> {
    let Some(service) = listed
        .services
        .iter()
        .find(|service| name_of(service) == name)
    else {
        return Ok(None);
    };
    let matching = listed.workloads.iter();
    let matching: Vec<_> = matching
        .filter(|(_, workload)| selects(service, template(workload)))
        .collect();
    match only(&matching, name)? {
        Some((kind, workload)) => Ok(Some(found(*kind, workload, vec![service.clone()]))),
        None => Err(Failure::failed(
            format!(
                "svc/{name}: no Deployment, StatefulSet or DaemonSet of {} has pods that it selects",
                listed.namespace
            ),
            format!(
                "kubectl -n {} describe service {}",
                quote(&listed.namespace),
                quote(name)
            ),
        )),
    }
}

fn only<'w>(matching: &[&'w (Kind, Value)], target: &str) -> Result<Option<&'w (Kind, Value)>> {
    match matching {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        [(kind, first), ..] => {
            let all: Vec<String> = matching
                .iter()
                .map(|(kind, workload)| format!("{}/{}", kind.lower_case(), name_of(workload)))
                .collect();
            Err(Failure::usage(
                format!(
                    "{target}: several workloads are meant by it: {}",
                    all.join(", ")
                ),
                format!("say which one: {}/{}", kind.lower_case(), name_of(first)),
            ))
        }
    }
}

fn found(kind: Kind, workload: &Value, services: Vec<Value>) -> Found {
    Found {
        kind,
        name: name_of(workload).to_owned(),
        object: workload.clone(),
        services,
    }
}

fn missing(listed: &Listed, target: &str) -> Failure {
    let names: BTreeSet<&str> = listed
        .services
        .iter()
        .map(name_of)
        .chain(listed.workloads.iter().map(|(_, object)| name_of(object)))
        .collect();
    let namespace = &listed.namespace;
    let there = match names.len() {
        0 => "there is none".to_owned(),
        1..=12 => format!(
            "there is {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        ),
        many => format!("there are {many} others"),
    };
    Failure::failed(
        format!("{target}: no such service or workload in the namespace {namespace}, {there}"),
        format!(
            "kubectl -n {} get services,deployments,statefulsets,daemonsets",
            quote(namespace)
        ),
    )
}

/// Does the Service select the pods of this template? One without a selector selects none.
fn selects(service: &Value, template: &Value) -> bool {
    let labels = &template["metadata"]["labels"];
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
    })
}

fn template(workload: &Value) -> &Value {
    &workload["spec"]["template"]
}

/// `metadata.name`.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

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
pub fn port_names(found: &Found, number: u16) -> PortNames {
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
pub fn meant(found: &Found, word: &str) -> Option<u16> {
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

/// Where a Service port leads to: a number, or a container port's name; its own number where nothing is said.
fn target_port(found: &Found, port: &Value) -> Option<u16> {
    match &port["targetPort"] {
        Value::String(name) => container_ports(found.template())
            .find(|port| port["name"].as_str() == Some(name))
            .and_then(|port| as_port(&port["containerPort"])),
        Value::Null => as_port(&port["port"]),
        number => as_port(number),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, selector: Value, ports: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"selector": selector, "ports": ports}})
    }

    fn workload(name: &str, labels: Value) -> Value {
        let ports = json!([{"name": "web", "containerPort": 8080}, {"containerPort": 9090}]);
        json!({"metadata": {"name": name}, "spec": {"template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "app", "ports": ports}]},
        }}})
    }

    fn shop() -> Listed {
        let orders = json!({"app": "orders"});
        Listed {
            namespace: "shop".to_owned(),
            services: vec![
                service(
                    "orders",
                    orders.clone(),
                    json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81, "targetPort": 9090}]),
                ),
                service("headless", orders.clone(), json!([{"port": 8080}])),
                service("outside", Value::Null, json!([])),
                service("carts", json!({"app": "carts"}), json!([])),
            ],
            workloads: vec![
                (Kind::Deployment, workload("orders-v1", orders)),
                (
                    Kind::StatefulSet,
                    workload("carts", json!({"app": "carts", "v": "1"})),
                ),
                (
                    Kind::DaemonSet,
                    workload("carts", json!({"app": "carts", "v": "2"})),
                ),
            ],
        }
    }

    fn found(target: &str) -> std::result::Result<(Kind, String), String> {
        let wanted = wanted(target).map_err(|failure| failure.to_string())?;
        let found = find(wanted, &shop()).map_err(|failure| failure.to_string())?;
        Ok((found.kind, found.name))
    }

    #[test]
    fn a_target_is_a_service_or_a_workload_of_any_kind() {
        let orders = Ok((Kind::Deployment, "orders-v1".to_owned()));
        for target in [
            "orders",
            "svc/orders",
            "service/headless",
            "orders-v1",
            "deploy/orders-v1",
            "deployment.apps/orders-v1",
        ] {
            assert_eq!(found(target), orders, "{target}");
        }
        assert_eq!(
            found("sts/carts"),
            Ok((Kind::StatefulSet, "carts".to_owned()))
        );
        assert_eq!(found("ds/carts"), Ok((Kind::DaemonSet, "carts".to_owned())));
    }

    #[test]
    fn what_is_not_one_workload_is_refused_with_what_there_is() {
        let cases = [
            (
                "nothing",
                "no such service or workload in the namespace shop",
            ),
            ("svc/orders-v1", "svc/orders-v1: no such service"),
            ("deploy/carts", "deployment/carts: no such"),
            ("outside", "has pods that it selects"),
            (
                "carts",
                "several workloads are meant by it: statefulset/carts, daemonset/carts",
            ),
            ("pod/x", "expected a name, or svc/"),
        ];
        for (target, expected) in cases {
            let error = found(target).unwrap_err();
            assert!(error.contains(expected), "{target}: {error}");
        }
    }

    #[test]
    fn a_word_of_port_means_a_service_port_before_a_container_port() {
        let found = find(Wanted::Named("orders"), &shop()).unwrap();
        let cases = [
            ("http", Some(8080)),
            ("80", Some(8080)),
            ("web", Some(8080)),
            ("8080", Some(8080)),
            ("81", Some(9090)),
            ("admin", Some(9090)),
            ("9090", Some(9090)),
            ("7", None),
        ];
        for (word, port) in cases {
            assert_eq!(meant(&found, word), port, "{word}");
        }
        let headless = find(Wanted::Named("headless"), &shop()).unwrap();
        assert_eq!(meant(&headless, "8080"), Some(8080));
        assert_eq!(meant(&headless, "http"), None);
    }

    #[test]
    fn a_port_bears_the_names_of_all_services_that_lead_to_it() {
        let found = find(Wanted::Workload(Kind::Deployment, "orders-v1"), &shop()).unwrap();
        let names = port_names(&found, 8080);
        let services: Vec<_> = names
            .services
            .iter()
            .map(|port| (port.service.as_str(), port.number))
            .collect();
        assert_eq!(services, [("orders", 80), ("headless", 8080)]);
        assert_eq!(names.container.as_deref(), Some("web"));
    }

    #[test]
    fn several_service_ports_may_lead_to_one_container_port() {
        let mut shop = shop();
        let ports = json!([{"name": "old", "port": 8000, "targetPort": 8080}, {"name": "older", "port": 8001, "targetPort": "web"}]);
        shop.services
            .push(service("legacy", json!({"app": "orders"}), ports));
        let numbers = |target| {
            let found = find(wanted(target).unwrap(), &shop).unwrap();
            let names = port_names(&found, 8080).services;
            let numbers: Vec<u16> = names.iter().map(|name| name.number).collect();
            let meant: Vec<Option<u16>> = numbers
                .iter()
                .map(|number| meant(&found, &number.to_string()))
                .collect();
            assert!(meant.iter().all(|port| *port == Some(8080)), "{meant:?}");
            numbers
        };
        assert_eq!(
            numbers("legacy"),
            [8000, 8001],
            "by the Service that is named"
        );
        assert_eq!(numbers("orders"), [80]);
        assert_eq!(
            numbers("deploy/orders-v1"),
            [80, 8080, 8000, 8001],
            "by all of them"
        );
    }

    #[test]
    fn a_service_that_leads_nowhere_does_not_hide_a_workload_of_its_name() {
        let mut shop = shop();
        shop.services
            .push(service("orders-v1", json!({"app": "gone"}), json!([])));
        let found = find(Wanted::Named("orders-v1"), &shop).unwrap();
        assert_eq!(
            (found.kind, found.name.as_str()),
            (Kind::Deployment, "orders-v1")
        );
        assert!(find(Wanted::Service("orders-v1"), &shop).is_err());
    }
}

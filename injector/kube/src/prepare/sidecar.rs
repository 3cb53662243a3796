//! What a pod's sidecar sees of its requests: whether there is one, which ports go past it, and what a `Sidecar` resource makes of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::labels::contains;
use super::ports::Offered;
use super::protocol::{Spoken, spoken};

/// The sidecar's container; with native sidecars an init container.
const PROXY: &str = "istio-proxy";

/// Labels or annotations by which a pod says whether it wants a sidecar.
const INJECT: &str = "sidecar.istio.io/inject";

/// Does this pod have a sidecar?
pub fn has_sidecar(pod: &Value) -> bool {
    let names = |list: &str| {
        let containers = pod.pointer(list).and_then(Value::as_array);
        containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
    };
    names("/spec/containers")
        .chain(names("/spec/initContainers"))
        .any(|name| name == PROXY)
}

/// Would the mesh inject a sidecar into a new pod? The pod's own word, then the namespace's.
pub fn is_injected(pod: &ObjectMeta, namespace: &Value) -> bool {
    let own = |map: &Option<BTreeMap<String, String>>| {
        map.as_ref()
            .and_then(|map| map.get(INJECT))
            .map(|value| value == "true")
    };
    let namespace_label = |key: &str| namespace["metadata"]["labels"][key].as_str();
    own(&pod.labels)
        .or_else(|| own(&pod.annotations))
        .unwrap_or_else(|| match namespace_label("istio-injection") {
            Some(value) => value == "enabled",
            None => namespace_label("istio.io/rev").is_some(),
        })
}

/// Does a port go past the sidecar? Ports that are excluded always do; with a list of included ones, all others.
pub fn is_bypassed(pod: &ObjectMeta, port: u16) -> bool {
    let annotation = |name: &str| {
        let key = format!("traffic.sidecar.istio.io/{name}");
        pod.annotations
            .as_ref()
            .and_then(|map| map.get(&key))
            .map(String::as_str)
    };
    let lists = |text: &str| text.split(',').any(|item| item.trim() == port.to_string());
    let included =
        annotation("includeInboundPorts").is_none_or(|text| text.trim() == "*" || lists(text));
    annotation("excludeInboundPorts").is_some_and(lists) || !included
}

/// Does the kubelet probe the program itself, through the sidecar's filters, instead of asking the agent? (`rewriteAppHTTPProbers`)
pub fn probes_go_through(pod: &ObjectMeta) -> bool {
    let annotations = pod.annotations.as_ref();
    let value = annotations.and_then(|map| map.get("sidecar.istio.io/rewriteAppHTTPProbers"));
    value.is_some_and(|value| value == "false")
}

/// The `Sidecar` resource that Istio takes for these pods: one that selects them, else one for the whole namespace; of several the oldest.
pub fn resource<'s>(labels: &BTreeMap<String, String>, sidecars: &'s [Value]) -> Option<&'s Value> {
    let selector = |sidecar: &Value| {
        let selector = sidecar.pointer("/spec/workloadSelector/labels").cloned();
        serde_json::from_value::<BTreeMap<String, String>>(selector.unwrap_or_default())
            .unwrap_or_default()
    };
    let selects = |sidecar: &&Value| {
        let selector = selector(sidecar);
        !selector.is_empty() && contains(labels, &selector)
    };
    let mut sidecars: Vec<&Value> = sidecars.iter().collect();
    let text = |sidecar: &Value, key: &str| {
        sidecar["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    sidecars.sort_by_key(|one| (text(one, "creationTimestamp"), text(one, "name")));
    let own = sidecars.iter().copied().find(selects);
    own.or_else(|| {
        sidecars
            .iter()
            .copied()
            .find(|one| selector(one).is_empty())
    })
}

/// The ports that a `Sidecar` resource lists, in place of those that Services lead to: `None` where it lists none. A port that cannot be intercepted is an error with its reason.
pub fn ingress(sidecar: &Value, offered: &[Offered]) -> Option<Vec<Result<Offered, String>>> {
    let listeners = sidecar.pointer("/spec/ingress")?.as_array()?;
    if listeners.is_empty() {
        return None;
    }
    let name = sidecar["metadata"]["name"].as_str().unwrap_or_default();
    let listed = listeners
        .iter()
        .map(|listener| listed(name, listener, offered))
        .collect();
    Some(listed)
}

fn listed(sidecar: &str, listener: &Value, offered: &[Offered]) -> Result<Offered, String> {
    let port = &listener["port"];
    let number = port["number"]
        .as_u64()
        .and_then(|number| u16::try_from(number).ok());
    let number =
        number.ok_or_else(|| format!("Sidecar {sidecar}: an ingress port without a number"))?;
    let endpoint = listener["defaultEndpoint"].as_str().unwrap_or_default();
    let app = endpoint_address(endpoint, number).ok_or_else(|| {
        format!(
            "port {number}: Sidecar {sidecar} leads it to `{endpoint}`, expected 127.0.0.1:PORT"
        )
    })?;
    let known = offered.iter().find(|known| known.number == number);
    Ok(Offered {
        number,
        app,
        spoken: listener_protocol(number, port),
        services: known
            .map(|known| known.services.clone())
            .unwrap_or_default(),
        names: known.map_or_else(|| vec![number.to_string()], |known| known.names.clone()),
    })
}

/// A listener says what it speaks in a field of its own.
fn listener_protocol(number: u16, port: &Value) -> Spoken {
    let protocol = port["protocol"]
        .as_str()
        .filter(|protocol| !protocol.is_empty());
    spoken(i32::from(number), port["name"].as_str(), None, protocol)
}

/// `0.0.0.0` stands for the pod's own address: a program that listens on all addresses is on the loopback as well.
fn endpoint_address(endpoint: &str, number: u16) -> Option<SocketAddr> {
    if endpoint.is_empty() {
        return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, number)));
    }
    let address: SocketAddr = endpoint.parse().ok()?;
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    ip.is_loopback()
        .then(|| SocketAddr::new(ip, address.port()))
}

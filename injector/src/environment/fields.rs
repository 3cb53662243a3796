//! Values of `fieldRef` and `resourceFieldRef`.

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use serde_json::Value;

use super::quantity::nanos;

const NO_POD: &str = "the workload has no pod at the moment";

/// The value of a pod field, for the paths that Kubernetes allows.
pub fn of_pod(pod: Option<&Value>, path: &str) -> Result<String, String> {
    let pod = pod.ok_or(NO_POD)?;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &pod["metadata"]["labels"],
            "metadata.annotations" => &pod["metadata"]["annotations"],
            _ => return Err(not_known(path)),
        };
        // A missing key is an empty value.
        return Ok(map[key].as_str().unwrap_or_default().to_owned());
    }
    let value = match path {
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName"
        | "status.hostIP"
        | "status.podIP" => pod.pointer(&format!("/{}", path.replace('.', "/"))),
        "status.podIPs" => return ips(&pod["status"]["podIPs"]).ok_or_else(|| not_set(path)),
        "status.hostIPs" => return ips(&pod["status"]["hostIPs"]).ok_or_else(|| not_set(path)),
        _ => return Err(not_known(path)),
    };
    let value = value
        .and_then(Value::as_str)
        .filter(|value| !value.is_empty());
    value.map(str::to_owned).ok_or_else(|| not_set(path))
}

/// Splits `metadata.labels['app']` into the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn ips(list: &Value) -> Option<String> {
    let ips: Vec<&str> = list
        .as_array()?
        .iter()
        .filter_map(|entry| entry["ip"].as_str())
        .collect();
    (!ips.is_empty()).then(|| ips.join(","))
}

/// A limit or request of this container, or of another one of the pod, divided and rounded up.
pub fn of_resources(
    field: &ResourceFieldSelector,
    own: &Container,
    pod: Option<&Value>,
) -> Result<String, String> {
    let resource = field.resource.as_str();
    let quantity = match field
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty() && *name != own.name)
    {
        None => {
            let resources = serde_json::to_value(&own.resources).unwrap_or_default();
            quantity(&resources, resource)
        }
        Some(name) => {
            let containers = pod.ok_or(NO_POD)?["spec"]["containers"].as_array();
            let mut containers = containers.into_iter().flatten();
            let other = containers.find(|container| container["name"].as_str() == Some(name));
            let other = other.ok_or_else(|| format!("the pod has no container {name}"))?;
            quantity(&other["resources"], resource)
        }
    };
    let divisor = field
        .divisor
        .as_ref()
        .map_or("1", |divisor| divisor.0.as_str());
    let unreadable = || format!("{resource} divided by {divisor} is no number");
    let divisor = match nanos(divisor).ok_or_else(unreadable)? {
        // The API server writes the default divisor as 0.
        0 => 1_000_000_000,
        divisor => divisor,
    };
    match quantity {
        Some(quantity) => {
            let quantity = nanos(&quantity).ok_or_else(unreadable)?;
            Ok(((quantity + divisor - 1) / divisor).to_string())
        }
        None if resource.starts_with("requests.") => Ok("0".to_owned()),
        None => Err(format!(
            "{resource} is not set; then it is the node's, which only the node knows"
        )),
    }
}

fn quantity(resources: &Value, resource: &str) -> Option<String> {
    let (list, name) = resource.split_once('.')?;
    Some(resources[list][name].as_str()?.to_owned())
}

fn not_set(path: &str) -> String {
    format!("the pod has no {path} yet")
}

fn not_known(path: &str) -> String {
    format!("{path} is no field that a variable can have")
}

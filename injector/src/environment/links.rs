//! Service variables, as the kubelet makes them (`k8s.io/kubernetes/pkg/kubelet/envvars`).
//!
//! The container's own variables take precedence. Pure.
//!
//! Leaves out Docker's link variables (`NAME_PORT_80_TCP_ADDR`), which Kubernetes keeps for old images only, and those of the API server (`KUBERNETES_SERVICE_HOST`):
//! a program that finds them looks for a token of the cluster.

use std::collections::BTreeMap;

use serde_json::Value;

/// Service variables by name.
pub type Links = BTreeMap<String, String>;

/// The variables that the pod was started with. `services` are those of its namespace.
///
/// `enableServiceLinks` defaults to true. Services that are younger than the pod are in no environment.
pub fn links(pod: &Value, services: &[Value]) -> Links {
    if pod["spec"]["enableServiceLinks"] == Value::Bool(false) {
        return Links::new();
    }
    // RFC 3339 in UTC, as the API server writes it: the texts sort by time.
    let created = |object: &Value| {
        let created = object["metadata"]["creationTimestamp"].as_str();
        created.map(str::to_owned)
    };
    let started = created(pod);
    let earlier = services
        .iter()
        .filter(|service| started.is_none() || created(service) <= started);
    earlier.flat_map(of_service).collect()
}

fn of_service(service: &Value) -> Vec<(String, String)> {
    let metadata = &service["metadata"];
    let ip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let is_api_server = metadata["name"] == "kubernetes" && metadata["namespace"] == "default";
    if ip.is_empty() || ip == "None" || is_api_server {
        return Vec::new();
    }
    let name = variable(metadata["name"].as_str().unwrap_or_default());
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut made = vec![(format!("{name}_SERVICE_HOST"), ip.to_owned())];
    for (index, port) in ports.enumerate() {
        let number = port["port"].as_u64().unwrap_or_default().to_string();
        if let Some(own) = port["name"].as_str().filter(|own| !own.is_empty()) {
            let own = variable(own);
            made.push((format!("{name}_SERVICE_PORT_{own}"), number.clone()));
        }
        if index == 0 {
            made.push((format!("{name}_SERVICE_PORT"), number));
        }
    }
    made
}

fn variable(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, ip: &str, ports: Value) -> Value {
        let metadata = json!({"name": name, "namespace": "default", "creationTimestamp": "2026-01-02T00:00:00Z"});
        json!({"metadata": metadata, "spec": {"clusterIP": ip, "ports": ports}})
    }

    fn pod(created: &str) -> Value {
        json!({"metadata": {"creationTimestamp": created}, "spec": {}})
    }

    const LATER: &str = "2026-01-03T00:00:00Z";

    /// The cases of Kubernetes' own test (`envvars_test.go`), without redundant ones.
    #[test]
    fn service_variables_match_the_kubelet() {
        let services = [
            service(
                "foo-bar",
                "1.2.3.4",
                json!([{"port": 8080, "protocol": "TCP"}]),
            ),
            service(
                "v6",
                "fd00::1",
                json!([{"name": "u-d-p", "port": 8081, "protocol": "UDP"}, {"name": "t", "port": 8082}]),
            ),
            service("headless", "None", json!([{"port": 1}])),
            service("external", "", json!([{"port": 1}])),
            service("kubernetes", "10.96.0.1", json!([{"port": 443}])),
        ];
        let made = links(&pod(LATER), &services);
        let lines: Vec<String> = made
            .iter()
            .map(|(name, it)| format!("{name}={it}"))
            .collect();
        let expected = "\
FOO_BAR_SERVICE_HOST=1.2.3.4
FOO_BAR_SERVICE_PORT=8080
V6_SERVICE_HOST=fd00::1
V6_SERVICE_PORT=8081
V6_SERVICE_PORT_T=8082
V6_SERVICE_PORT_U_D_P=8081";
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn only_older_services_are_known() {
        let services = [service("db", "1.2.3.4", json!([{"port": 5432}]))];
        assert!(!links(&pod(LATER), &services).is_empty());
        assert!(links(&pod("2026-01-01T00:00:00Z"), &services).is_empty());
        let mut without = pod(LATER);
        without["spec"]["enableServiceLinks"] = json!(false);
        assert!(links(&without, &services).is_empty());
    }
}

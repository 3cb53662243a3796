//! What the pods of a workload say about whether it can be intercepted: the sidecar, its version, ports that pass it by, probes that do not. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// The sidecar's container.
pub const SIDECAR: &str = "istio-proxy";

/// The oldest Istio whose proxies can do what the gate needs.
const OLDEST: (u32, u32) = (1, 29);

/// Why the requests of a pod cannot be intercepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It uses the node's network.
    #[error("it uses the node's network (hostNetwork), where no sidecar is")]
    HostNetwork,
    /// It has no sidecar.
    #[error("it has no sidecar (no container {SIDECAR})")]
    NoSidecar,
    /// Its sidecar is of this version of Istio.
    #[error("its sidecar is Istio {0}.{1}, expected {major}.{minor} or later", major = OLDEST.0, minor = OLDEST.1)]
    OldIstio(u32, u32),
    /// A port passes its sidecar by, because of an annotation.
    #[error("port {0} passes its sidecar by (annotation {1})")]
    PassesBy(u16, &'static str),
    /// The kubelet's probes of a container pass through the sidecar, which matters to intercepts of all requests alone.
    #[error(
        "the kubelet's probes of the container {0} pass through the sidecar (probe rewriting is off), so an intercept of all requests is refused"
    )]
    Probed(String),
}

/// A pod whose requests cannot be intercepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pod {pod}: {fault}")]
pub struct PodError {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Why.
    pub fault: Fault,
}

/// All that is wrong with a pod, for these ports.
pub fn faults(pod: &Value, ports: &[u16]) -> Vec<Fault> {
    if pod["spec"]["hostNetwork"] == Value::Bool(true) {
        return vec![Fault::HostNetwork];
    }
    let Some(sidecar) = sidecar(pod) else {
        return vec![Fault::NoSidecar];
    };
    let mut faults = Vec::new();
    if let Some((major, minor)) = version(sidecar).filter(|version| *version < OLDEST) {
        faults.push(Fault::OldIstio(major, minor));
    }
    let passing = ports
        .iter()
        .filter_map(|port| Some((*port, passes_by(pod, *port)?)));
    faults.extend(passing.map(|(port, annotation)| Fault::PassesBy(port, annotation)));
    faults.extend(is_probed_directly(pod).map(|container| Fault::Probed(container.to_owned())));
    faults
}

/// Refuses what would not work. `pods` are those of one workload; those that are going away count for nothing. `all`: an intercept of all requests.
pub fn check(namespace: &str, pods: &[Value], port: u16, all: bool) -> Result<(), PodError> {
    for pod in pods.iter().filter(|pod| !is_leaving(pod)) {
        let mut faults = faults(pod, &[port]).into_iter();
        let matters = |fault: &Fault| all || !matches!(fault, Fault::Probed(_));
        if let Some(fault) = faults.find(matters) {
            return Err(PodError {
                namespace: namespace.to_owned(),
                pod: name_of(pod).to_owned(),
                fault,
            });
        }
    }
    Ok(())
}

/// Is it being deleted, or has it ended?
pub fn is_leaving(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
        || matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        )
}

/// Can its sidecar be asked what it has?
pub fn can_be_asked(pod: &Value) -> bool {
    !is_leaving(pod) && runs(pod, SIDECAR)
}

/// Have all of its containers ended for good? Such a pod may stay for long, an evicted one for instance.
pub fn has_ended(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Does this container of it run?
pub fn runs(pod: &Value, container: &str) -> bool {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut statuses = lists
        .into_iter()
        .filter_map(|list| pod["status"][list].as_array())
        .flatten();
    statuses.any(|status| {
        status["name"].as_str() == Some(container) && !status["state"]["running"].is_null()
    })
}

/// Is it ready?
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    !is_leaving(pod)
        && conditions.any(|condition| {
            condition["type"].as_str() == Some("Ready")
                && condition["status"].as_str() == Some("True")
        })
}

/// Labels as kubectl's `--selector`.
pub fn selector(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// A pod's name.
pub fn name_of(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The mesh's name for the workload: its requests reach the relay under this identity (SPIFFE).
pub fn identity(namespace: &str, template: &Value, pods: &[Value]) -> String {
    let account = template["spec"]["serviceAccountName"].as_str();
    let domain = pods.iter().find_map(|pod| {
        let env = sidecar(pod)?["env"].as_array()?;
        let domain = env
            .iter()
            .find(|variable| variable["name"].as_str() == Some("TRUST_DOMAIN"))?;
        domain["value"].as_str()
    });
    format!(
        "spiffe://{}/ns/{namespace}/sa/{}",
        domain.unwrap_or("cluster.local"),
        account.unwrap_or("default")
    )
}

/// The mesh's proxy: among the containers, or among the init containers where Kubernetes runs sidecars of its own kind.
pub fn sidecar(pod: &Value) -> Option<&Value> {
    let lists = ["containers", "initContainers"];
    let mut containers = lists
        .into_iter()
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten();
    containers.find(|container| container["name"].as_str() == Some(SIDECAR))
}

/// From the image's tag; `None` where it says nothing that looks like a version.
fn version(sidecar: &Value) -> Option<(u32, u32)> {
    let image = sidecar["image"].as_str()?;
    let (_, tag) = image.rsplit('/').next()?.split_once(':')?;
    let tag = tag.split('@').next()?;
    let mut parts = tag.trim_start_matches('v').split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn passes_by(pod: &Value, port: u16) -> Option<&'static str> {
    let annotation = |name: &str| pod["metadata"]["annotations"][name].as_str();
    let lists = |list: &str| {
        list.split(',')
            .any(|entry| entry.trim() == port.to_string())
    };
    const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
    const INCLUDED: &str = "traffic.sidecar.istio.io/includeInboundPorts";
    if annotation(EXCLUDED).is_some_and(lists) {
        return Some(EXCLUDED);
    }
    let included = annotation(INCLUDED).filter(|list| list.trim() != "*");
    included
        .is_some_and(|list| !lists(list))
        .then_some(INCLUDED)
}

/// A container whose HTTP probe asks the program itself. Istio's injection turns these into questions to its agent, below `/app-health/`.
fn is_probed_directly(pod: &Value) -> Option<&str> {
    let containers = pod["spec"]["containers"].as_array();
    let is_direct = |container: &&Value| {
        ["livenessProbe", "readinessProbe", "startupProbe"]
            .iter()
            .filter_map(|probe| container[*probe]["httpGet"]["path"].as_str())
            .any(|path| !path.starts_with("/app-health/"))
    };
    let mut containers = containers
        .into_iter()
        .flatten()
        .filter(|container| container["name"].as_str() != Some(SIDECAR));
    containers.find(is_direct)?["name"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "orders-1"},
            "spec": {
                "containers": [
                    {"name": "app", "readinessProbe": {"httpGet": {"path": "/app-health/app/readyz", "port": 15020}}},
                    {"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.31.0-distroless", "env": [{"name": "TRUST_DOMAIN", "value": "td"}],
                     "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}}},
                ],
            },
        })
    }

    fn why(change: impl FnOnce(&mut Value), all: bool) -> String {
        let mut pod = pod();
        change(&mut pod);
        match check("shop", &[pod], 8080, all) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn pod_with_sidecar_can_be_intercepted() {
        assert_eq!(why(|_| {}, true), "");
        // A sidecar of Kubernetes' own kind.
        let native = |pod: &mut Value| {
            let sidecar = pod["spec"]["containers"].as_array_mut().unwrap().pop();
            pod["spec"]["initContainers"] = json!([sidecar]);
        };
        assert_eq!(why(native, true), "");
    }

    #[test]
    fn unusable_pod_is_refused_with_reason() {
        let annotated = |key: &'static str, value: &'static str| {
            move |pod: &mut Value| pod["metadata"]["annotations"][key] = json!(value)
        };
        assert!(why(|pod| pod["spec"]["hostNetwork"] = json!(true), false).contains("hostNetwork"));
        assert!(
            why(
                |pod| pod["spec"]["containers"][1]["name"] = json!("x"),
                false
            )
            .contains("no sidecar")
        );
        let old = |pod: &mut Value| {
            pod["spec"]["containers"][1]["image"] = json!("r:5000/proxyv2:1.28.3")
        };
        assert!(why(old, false).contains("is Istio 1.28, expected 1.29 or later"));
        let excluded = "traffic.sidecar.istio.io/excludeInboundPorts";
        assert!(why(annotated(excluded, "1, 8080"), false).contains("passes its sidecar by"));
        assert_eq!(why(annotated(excluded, "80"), false), "");
        let included = "traffic.sidecar.istio.io/includeInboundPorts";
        assert!(why(annotated(included, "80"), false).contains("passes its sidecar by"));
        assert_eq!(why(annotated(included, "*"), false), "");
    }

    #[test]
    fn probed_pod_refuses_intercept_of_all() {
        let direct = |pod: &mut Value| {
            pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] = json!("/readyz")
        };
        assert!(why(direct, true).contains("probe rewriting is off"));
        assert_eq!(why(direct, false), "");
    }

    #[test]
    fn terminating_pod_is_ignored() {
        let leaving = |pod: &mut Value| {
            pod["spec"]["containers"] = json!([]);
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-22T15:00:00Z");
        };
        assert_eq!(why(leaving, true), "");
    }

    #[test]
    fn identity_is_service_account_in_trust_domain() {
        let template = json!({"spec": {"serviceAccountName": "orders"}});
        assert_eq!(
            identity("shop", &template, &[pod()]),
            "spiffe://td/ns/shop/sa/orders"
        );
        assert_eq!(
            identity("shop", &json!({}), &[]),
            "spiffe://cluster.local/ns/shop/sa/default"
        );
    }
}

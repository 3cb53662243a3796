//! Which container serves a port, and the config maps and secrets that its environment refers to, read with the caller's own rights. What becomes of them: `crate::environment`.

use std::collections::BTreeSet;

use intercept_kube::access::Right;
use intercept_kube::pods;
use intercept_kube::{Cluster, Kind, kind};
use k8s_openapi::api::core::v1::Container;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::environment::{self, Environment, Objects, Reference};
use crate::error::{CliError, OrHint, Result};
use crate::shell::quote;

/// Which container `kubectl logs` and `kubectl exec` mean; Istio's injection sets it as well.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The environment of the container that serves this port. `pods` are those of the workload whose `template` this is.
pub async fn read(
    cluster: &Cluster,
    namespace: &str,
    template: &Value,
    pods: &[Value],
    port: u16,
) -> Result<Environment> {
    let pod = newest_ready(pods);
    // A pod's own: what was injected into it is in its environment, too.
    let (found, is_certain) = container(pod.unwrap_or(template), port).ok_or_else(|| {
        CliError::failed(
            format!("port {port}: the workload has no container but its sidecar"),
            "go without the workload's environment: --no-env",
        )
    })?;
    let container: Container = serde_json::from_value(found.clone()).or_hint(
        "the workload's container cannot be read",
        "injector --version; or go without the workload's environment: --no-env",
    )?;
    let (objects, services) = tokio::try_join!(
        objects(cluster, namespace, environment::references(&container)),
        services(cluster, namespace),
    )?;
    let links = environment::links(pod.unwrap_or(template), &services);
    let mut environment = environment::resolve(&container, pod, &objects, &links);
    if !is_certain {
        environment.note(format!(
            "no container says that it serves port {port}; the environment is that of {}",
            container.name
        ));
    }
    Ok(environment)
}

/// Those of the namespace; none where the caller may not list them.
async fn services(cluster: &Cluster, namespace: &str) -> Result<Vec<Value>> {
    match cluster.list(&kind::SERVICE, Some(namespace), None).await {
        Err(error) if error.is_forbidden() => Ok(Vec::new()),
        answer => Ok(answer?),
    }
}

/// The one with the newest template, most likely.
fn newest_ready(pods: &[Value]) -> Option<&Value> {
    let created = |pod: &&Value| {
        pod["metadata"]["creationTimestamp"]
            .as_str()
            .map(str::to_owned)
    };
    let staying = || pods.iter().filter(|pod| !pods::is_leaving(pod));
    staying()
        .filter(|pod| pods::is_ready(pod))
        .max_by_key(created)
        .or_else(|| staying().max_by_key(created))
}

/// The container that has this port, else the one that is meant where nothing is said. Is it certain?
fn container(pod: &Value, port: u16) -> Option<(&Value, bool)> {
    let list = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
    let has_port = |container: &&Value| {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports
            .into_iter()
            .any(|found| found["containerPort"].as_u64() == Some(port.into()))
    };
    let is_own = |container: &&Value| container["name"].as_str() != Some(pods::SIDECAR);
    let own: Vec<&Value> = list("containers").filter(is_own).collect();
    let natives = list("initContainers").filter(is_own);
    if let Some(serving) = own.iter().copied().chain(natives).find(has_port) {
        return Some((serving, true));
    }
    let named = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    let default = own
        .iter()
        .find(|container| named.is_some() && container["name"].as_str() == named);
    match (own.as_slice(), default) {
        ([], _) => None,
        ([only], _) => Some((only, true)),
        (_, Some(default)) => Some((default, false)),
        ([first, ..], None) => Some((first, false)),
    }
}

/// Reads all objects concurrently. Reports each object that the caller may not read.
async fn objects(
    cluster: &Cluster,
    namespace: &str,
    references: Vec<Reference>,
) -> Result<Objects> {
    let mut reading = JoinSet::new();
    for reference in references {
        let (cluster, namespace) = (cluster.clone(), namespace.to_owned());
        reading.spawn(async move {
            let (kind, name) = address(&reference);
            let answer = cluster.get(kind, Some(&namespace), name).await;
            (reference, answer)
        });
    }
    let mut objects = Objects::new();
    let mut forbidden = BTreeSet::new();
    while let Some(answer) = reading.join_next().await {
        match answer.or_hint("the workload's environment", "injector doctor")? {
            (reference, Ok(Some(object))) => drop(objects.insert(reference, object)),
            (_, Ok(None)) => {}
            (reference, Err(error)) if error.is_forbidden() => drop(forbidden.insert(reference)),
            (_, Err(error)) => return Err(error.into()),
        }
    }
    match forbidden.is_empty() {
        true => Ok(objects),
        false => Err(refused(namespace, &forbidden)),
    }
}

fn address(reference: &Reference) -> (&'static Kind, &str) {
    match reference {
        Reference::ConfigMap(name) => (&kind::CONFIG_MAP, name),
        Reference::Secret(name) => (&kind::SECRET, name),
    }
}

fn refused(namespace: &str, forbidden: &BTreeSet<Reference>) -> CliError {
    let rights = forbidden.iter().map(|reference| {
        let (kind, name) = address(reference);
        Right::new("get", kind, Some(namespace))
            .on(name)
            .to_string()
    });
    let kinds: BTreeSet<&str> = forbidden
        .iter()
        .map(|reference| address(reference).0.plural)
        .collect();
    let names: Vec<String> = forbidden
        .iter()
        .map(|reference| format!(" --resource-name={}", quote(address(reference).1)))
        .collect();
    CliError::failed(
        format!(
            "the workload's environment: you may not {}",
            rights.collect::<Vec<_>>().join(", nor ")
        ),
        format!(
            "go without it: --no-env; or an operator makes a role and binds it to you: kubectl -n {} create role intercept-environment --verb=get --resource={}{}",
            quote(namespace),
            kinds.into_iter().collect::<Vec<_>>().join(","),
            names.concat()
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn serving(pod: &Value) -> Option<(&str, bool)> {
        let (container, is_certain) = container(pod, 8080)?;
        Some((container["name"].as_str()?, is_certain))
    }

    fn pod(containers: Value) -> Value {
        json!({"metadata": {}, "spec": {"containers": containers}})
    }

    #[test]
    fn environment_is_the_serving_containers() {
        let has_it = json!([{"containerPort": 9090}, {"containerPort": 8080}]);
        let two = pod(
            json!([{"name": "a"}, {"name": "b", "ports": has_it}, {"name": "istio-proxy", "ports": has_it}]),
        );
        assert_eq!(serving(&two), Some(("b", true)));
        let mut native = pod(json!([{"name": "a"}, {"name": "b"}]));
        native["spec"]["initContainers"] = json!([{"name": "c", "ports": has_it}]);
        assert_eq!(serving(&native), Some(("c", true)));
    }

    #[test]
    fn only_or_default_container_without_port() {
        assert_eq!(
            serving(&pod(json!([{"name": "istio-proxy"}, {"name": "a"}]))),
            Some(("a", true))
        );
        let mut two = pod(json!([{"name": "a"}, {"name": "b"}, {"name": "istio-proxy"}]));
        assert_eq!(serving(&two), Some(("a", false)));
        two["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(serving(&two), Some(("b", false)));
        assert_eq!(serving(&pod(json!([{"name": "istio-proxy"}]))), None);
    }

    #[test]
    fn newest_ready_pod_is_read() {
        let pod = |name: &str, created: &str, ready: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let (old, new) = (
            pod("old", "2026-11-01T00:00:00Z", "True"),
            pod("new", "2026-11-02T00:00:00Z", "True"),
        );
        let starting = pod("starting", "2026-11-03T00:00:00Z", "False");
        let named = |pods: &[Value]| newest_ready(pods).map(|pod| pods::name_of(pod).to_owned());
        assert_eq!(
            named(&[new.clone(), old, starting.clone()]).as_deref(),
            Some("new")
        );
        assert_eq!(named(&[starting]).as_deref(), Some("starting"));
        assert_eq!(named(&[]), None);
    }
}

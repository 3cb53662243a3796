//! Whether what was installed runs.

use std::time::Duration;

use futures_util::future::join_all;
use intercept_kube::propagation;
use intercept_kube::{Cluster, Kind, kind};
use intercept_manifest::istio::{Object, names};
use serde_json::Value;
use tokio::time::Instant;

use super::{outbound, relays};
use crate::error::{CliError, Result};
use crate::shell::quote;

/// How long images may take to be pulled and pods to be ready.
const TIMEOUT: Duration = Duration::from_secs(180);

/// How long proxies may take to fetch the filter.
const PROXIES_TIMEOUT: Duration = Duration::from_secs(30);

/// How often to look.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until relays, module server and controller run as they were applied, the relays with sidecars; says to `told` what it waits for, whenever that changes.
pub async fn wait(cluster: &Cluster, namespace: &str, told: impl FnMut(&str)) -> Result<()> {
    let all = [
        (&kind::DEPLOYMENT, names::MODULE),
        (&kind::DEPLOYMENT, names::CONTROLLER),
        (&kind::STATEFUL_SET, names::RELAY),
    ];
    wait_all(cluster, namespace, &all, told).await?;
    check_sidecars(cluster, namespace).await
}

/// The same for the pods of developers' connections among these objects of a namespace.
pub async fn wait_outbound(
    cluster: &Cluster,
    namespace: &str,
    objects: &[Object],
    told: impl FnMut(&str),
) -> Result<()> {
    let sets = objects
        .iter()
        .filter(|object| object.kind() == kind::STATEFUL_SET.name);
    let sets: Vec<&str> = sets.map(Object::name).collect();
    let all: Vec<(&Kind, &str)> = sets
        .iter()
        .map(|name| (&kind::STATEFUL_SET, *name))
        .collect();
    wait_all(cluster, namespace, &all, told).await?;
    for set in sets {
        let pod = names::outbound_pod(set);
        let pod = cluster.get(&kind::POD, Some(namespace), &pod).await?;
        if let Some(fault) = pod.as_ref().and_then(outbound::fault) {
            return Err(CliError::failed(fault, outbound::fault_hint(namespace)));
        }
    }
    Ok(())
}

async fn wait_all(
    cluster: &Cluster,
    namespace: &str,
    all: &[(&Kind, &str)],
    mut told: impl FnMut(&str),
) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    for &(kind, name) in all {
        let mut last = String::new();
        loop {
            let object = cluster
                .get(kind, Some(namespace), name)
                .await?
                .unwrap_or_default();
            let progress = Progress::of(&object);
            if progress.is_done() {
                break;
            }
            let line = format!("{name}: {}/{} ready", progress.ready, progress.wanted);
            if line != last {
                told(&line);
                last = line;
            }
            if Instant::now() >= deadline {
                return Err(late(cluster, namespace, kind, name, &last).await);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn check_sidecars(cluster: &Cluster, namespace: &str) -> Result<()> {
    let set = cluster
        .get(&kind::STATEFUL_SET, Some(namespace), names::RELAY)
        .await?;
    let replicas = Progress::of(&set.unwrap_or_default()).wanted;
    let replicas = u16::try_from(replicas).unwrap_or(u16::MAX);
    let pods = relays::pods(cluster, namespace, replicas).await?;
    match relays::fault(&pods) {
        None => Ok(()),
        Some(fault) => Err(CliError::failed(fault, relays::hint(namespace))),
    }
}

/// Waits until the proxies of prepared workloads have the filter, which each of them fetches first. A line for each workload of which that cannot be said.
pub async fn wait_proxies(cluster: &Cluster, objects: &[Object]) -> Vec<String> {
    let plugins = objects
        .iter()
        .filter(|object| object.kind() == "WasmPlugin");
    let waits = plugins.map(async |plugin| {
        let waited = propagation::wait_filter(cluster, plugin.value(), PROXIES_TIMEOUT).await;
        let why = waited.err()?;
        let workload = &plugin.value()["metadata"]["annotations"][names::WORKLOAD];
        Some(format!(
            "{}: whether its proxies have the filter is not known ({why})",
            workload.as_str().unwrap_or_else(|| plugin.name())
        ))
    });
    join_all(waits).await.into_iter().flatten().collect()
}

/// How far a Deployment or StatefulSet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    is_seen: bool,
    wanted: u64,
    updated: u64,
    ready: u64,
}

impl Progress {
    fn of(object: &Value) -> Self {
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        Self {
            is_seen: number("/status/observedGeneration") >= number("/metadata/generation"),
            wanted: number("/spec/replicas"),
            updated: number("/status/updatedReplicas"),
            ready: number("/status/readyReplicas"),
        }
    }

    fn is_done(self) -> bool {
        self.is_seen && self.updated >= self.wanted && self.ready >= self.wanted
    }
}

async fn late(cluster: &Cluster, namespace: &str, kind: &Kind, name: &str, last: &str) -> CliError {
    let pods = cluster.list(&kind::POD, Some(namespace), None).await;
    let mut pods = pods.unwrap_or_default();
    pods.retain(|pod| {
        let labels = &pod["metadata"]["labels"];
        labels["app.kubernetes.io/instance"] == name || labels["app.kubernetes.io/name"] == name
    });
    let reasons: Vec<String> = pods.iter().flat_map(reasons).collect();
    let reasons = match reasons.as_slice() {
        [] => String::new(),
        reasons => format!(": {}", reasons.join("; ")),
    };
    CliError::failed(
        format!("{last} after {} s{reasons}", TIMEOUT.as_secs()),
        format!(
            "kubectl -n {} describe {} {name}",
            quote(namespace),
            kind.name.to_lowercase()
        ),
    )
}

/// Why the containers of a pod do not run, as the kubelet says it; or why no node takes it.
fn reasons(pod: &Value) -> Vec<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let list = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let waiting = list("/status/containerStatuses")
        .chain(list("/status/initContainerStatuses"))
        .filter_map(|status| {
            let waiting = status.pointer("/state/waiting")?;
            let reason = waiting["reason"].as_str()?;
            let message = waiting["message"].as_str().unwrap_or_default();
            Some(format!("{name}: {reason} {message}").trim_end().to_owned())
        });
    let unscheduled = list("/status/conditions")
        .filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .filter_map(|condition| Some(format!("{name}: {}", condition["message"].as_str()?)));
    waiting.chain(unscheduled).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_done_when_the_new_pods_are_ready_and_not_before() {
        let object = |seen: u64, updated: u64, ready: u64| {
            json!({
                "metadata": {"generation": 3},
                "spec": {"replicas": 2},
                "status": {"observedGeneration": seen, "updatedReplicas": updated, "readyReplicas": ready},
            })
        };
        assert!(Progress::of(&object(3, 2, 2)).is_done());
        assert!(
            !Progress::of(&object(2, 2, 2)).is_done(),
            "the controller has not seen the change"
        );
        assert!(
            !Progress::of(&object(3, 1, 2)).is_done(),
            "one of the old pods is ready"
        );
        assert!(!Progress::of(&object(3, 2, 1)).is_done());
    }

    #[test]
    fn why_a_pod_does_not_run_is_said_in_the_kubelets_words() {
        let waiting = json!({"reason": "ErrImagePull", "message": "not found"});
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [{"state": {"waiting": waiting}}]}});
        assert_eq!(reasons(&pod), ["p: ErrImagePull not found"]);
        let condition = json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes"});
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": [condition]}});
        assert_eq!(reasons(&pod), ["p: 0/1 nodes"]);
    }
}

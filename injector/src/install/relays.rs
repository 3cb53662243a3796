//! The relays' pods: whether their sidecars can serve them. A relay believes only what its sidecar says of a caller: without one it is ready, and takes no request.

use futures_util::future::try_join_all;
use intercept_kube::pods::{self, Fault};
use intercept_kube::{Cluster, ClusterError, kind};
use intercept_manifest::istio::names;
use serde_json::Value;

use crate::install_args::InstallArgs;
use crate::shell::quote;

/// Those that are there. A user who may open tunnels may read each by its name, and list none.
pub async fn pods(
    cluster: &Cluster,
    namespace: &str,
    replicas: u16,
) -> Result<Vec<Value>, ClusterError> {
    let gets = (0..replicas).map(async |replica| {
        let pod = names::relay_replica(replica);
        cluster.get(&kind::POD, Some(namespace), &pod).await
    });
    Ok(try_join_all(gets).await?.into_iter().flatten().collect())
}

/// What is wrong with the first relay that has no sidecar.
pub fn fault(pods: &[Value]) -> Option<String> {
    let staying = pods.iter().filter(|pod| !pods::is_leaving(pod));
    let mut faults = staying.flat_map(|pod| {
        let faults = pods::faults(pod, &[]).into_iter();
        faults.map(move |fault| (pods::name_of(pod), fault))
    });
    let (pod, fault) =
        faults.find(|(_, fault)| matches!(fault, Fault::NoSidecar | Fault::HostNetwork))?;
    Some(format!(
        "{pod}: {fault}: it takes no request, and the cluster answers every one that is intercepted"
    ))
}

/// What to do about it.
pub fn hint(namespace: &str) -> String {
    format!(
        "which revisions inject: kubectl get mutatingwebhookconfigurations -l app=sidecar-injector -L istio.io/rev; \
         then: injector install --revision NAME{}; kubectl -n {} rollout restart statefulset {}",
        InstallArgs::beside(namespace).flags(),
        quote(namespace),
        names::RELAY
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_relay_without_a_sidecar_is_a_fault_however_ready_it_is() {
        let pod = |name: &str, containers: Value| {
            let ready = json!([{"type": "Ready", "status": "True"}]);
            json!({"metadata": {"name": name}, "spec": {"containers": containers}, "status": {"conditions": ready}})
        };
        let probe = json!({"httpGet": {"path": "/healthz"}});
        let relay = json!({"name": "relay", "readinessProbe": probe});
        let sidecar = json!({"name": "istio-proxy", "image": "x/proxyv2:1.30.0"});
        let served = pod("injector-relay-0", json!([relay, sidecar]));
        let bare = pod("injector-relay-1", json!([relay]));
        let mut leaving = bare.clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(fault(&[served.clone(), leaving]), None);
        let fault = fault(&[served, bare]).unwrap();
        assert!(
            fault.starts_with("injector-relay-1: it has no sidecar"),
            "{fault}"
        );
    }
}

//! What could keep an intercept from working, looked at one by one. The checks are pure: objects in, findings out; `seen` and `proxies` bring what they look at.

mod admission;
mod check;
mod clock;
mod installation;
mod intercepts;
mod mesh_conflicts;
pub mod namespace;
mod outbound;
mod policies;
mod proxies;
mod proxy;
mod relays;
pub mod rights;
mod snapshot;
mod workload;

use intercept_kube::Cluster;
use serde_json::Value;

use crate::install::{self, current_install};

pub use check::{Check, Outcome};
pub use snapshot::Target;

/// Everything that can be looked at; without a target, the cluster part and the Intercepts of the namespace.
pub async fn examine(cluster: &Cluster, relay_namespace: &str, target: Option<&str>) -> Vec<Check> {
    let mut checks = Vec::new();
    match cluster.whoami().await {
        Ok(user) => checks.push(Check::pass(
            "api-server",
            format!("{}: you are {}", cluster.server(), user.name),
        )),
        // Without an API server there is nothing else to look at.
        Err(error) => {
            checks.push(Check::unanswered("api-server", "API server", &error));
            return checks;
        }
    }
    let now = cluster.server_time().await;
    checks.push(clock::check(&now));
    let installation = snapshot::Installation::read(cluster, relay_namespace).await;
    checks.extend(installation::checks(&installation, relay_namespace));
    let replicas = installation.replicas();
    let pods = install::relays::pods(cluster, relay_namespace, replicas).await;
    checks.extend(relays::check(&pods, relay_namespace));
    let target = match target {
        Some(target) => Some(Target::read(cluster, relay_namespace, target).await),
        None => None,
    };
    match &target {
        Some(Ok(target)) => checks.extend(of_target(cluster, target, &installation, &pods).await),
        Some(Err(failure)) => checks.push(Check::fail("target", failure.error(), failure.hint())),
        None => {}
    }
    let namespace = snapshot::Intercepts::read(cluster).await;
    checks.extend(intercepts::checks(&namespace));
    if target.is_some() {
        checks.extend(rights::of_intercept(cluster, relay_namespace).await);
    }
    checks.extend(rights::of_tunnels(cluster, (relay_namespace, replicas)).await);
    checks.extend(outbound::examine(cluster, (relay_namespace, replicas)).await);
    checks
}

async fn of_target(
    cluster: &Cluster,
    target: &Target,
    installation: &snapshot::Installation,
    relay_pods: &snapshot::Answer<Vec<Value>>,
) -> Vec<Check> {
    let relay_namespace = &target.relay_namespace;
    let mut checks = workload::checks(target);
    let revision = installation.revision();
    let mesh = match current_install::mesh_config(cluster, revision.as_deref()).await {
        Ok(mesh) => mesh,
        Err(failure) => {
            checks.push(Check::unknown("mesh-config", failure.error()));
            Value::Null
        }
    };
    let root = current_install::root_of(&mesh);
    let around = snapshot::Surroundings::read(cluster, &root, relay_namespace).await;
    checks.extend(mesh_conflicts::checks(&around, target, relay_namespace));
    checks.push(mesh_conflicts::export(
        installation,
        &mesh,
        target,
        relay_namespace,
    ));
    let relay = installation.relay.as_ref().ok().and_then(Option::as_ref);
    let relays = policies::of_relays(relay, relay_pods);
    checks.extend(policies::checks(&around, target, &relays));
    checks.push(installation::digest(cluster, relay_namespace, target).await);
    checks.extend(proxies::examine(cluster, target).await);
    checks
}

#[cfg(test)]
mod tests;

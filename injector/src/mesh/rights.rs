//! What the caller may do, asked of the API server before anything is opened or written.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::access::Right;
use crate::cluster::{Cluster, ClusterError, kind};
use crate::hint::{Failure, Result};
use crate::manifest::istio::names;
use crate::shell::quote;

/// To write the entry, into the workload's WasmPlugin. This and the next two are one list for `intercept` and `doctor`.
pub fn entry<'a>(namespace: &'a str, plugin: &'a str) -> Right<'a> {
    Right::new("patch", &kind::WASM_PLUGIN, Some(namespace)).on(plugin)
}

/// To have a cluster of its own, in an EnvoyFilter whose name nobody knows beforehand. Without one of these it shares that of its relay.
pub fn own_cluster(namespace: &str) -> [Right<'_>; 3] {
    ["create", "patch", "delete"].map(|verb| Right::new(verb, &kind::ENVOY_FILTER, Some(namespace)))
}

/// To open a tunnel to this relay; none of them can be done without.
pub fn tunnel<'a>(namespace: &'a str, relay: &'a str) -> [Right<'a>; PORT_FORWARD.len()] {
    port_forward(namespace).map(|right| right.on(relay))
}

/// Kubernetes asks for `get` today, for `create` too from 1.35 on.
pub const PORT_FORWARD: [&str; 2] = ["get", "create"];

/// To any pod of the namespace.
fn port_forward(namespace: &str) -> [Right<'_>; PORT_FORWARD.len()] {
    PORT_FORWARD.map(|verb| Right::new(verb, &kind::POD, Some(namespace)).of("portforward"))
}

/// The rights that an intercept takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// What is missing and cannot be done without, as it stands in a sentence.
    missing: Vec<String>,
    /// The relays to whose pods the caller may forward ports, by number.
    pub relays: BTreeSet<u16>,
    /// May write the intercept's own EnvoyFilter; without it, the shared cluster of a relay is used.
    pub clusters: bool,
    /// May forward ports to the workload's pods; without it, nobody can tell whether the replicas have taken a change.
    pub admin: bool,
}

impl Rights {
    /// Asks. `plugin` is the workload's WasmPlugin, `relays` the namespace of the relays and how many there are.
    pub async fn ask(
        cluster: &Cluster,
        namespace: &str,
        plugin: &str,
        (relays, replicas): (&str, u16),
    ) -> Result<Self, ClusterError> {
        let entry = entry(namespace, plugin);
        let (admin, clusters) = (port_forward(namespace), own_cluster(namespace));
        let (tunnels, may_patch, admin, clusters) = tokio::try_join!(
            tunnels(cluster, relays, replicas),
            cluster.can(&entry),
            all(cluster, &admin),
            all(cluster, &clusters),
        )?;
        // One relay is enough. Where there is none, what the first one takes says what to ask for.
        let mut missing = Vec::new();
        let open: BTreeSet<u16> = (0..)
            .zip(&tunnels)
            .filter(|(_, missing)| missing.is_empty())
            .map(|(relay, _)| relay)
            .collect();
        if open.is_empty() {
            missing.extend(tunnels.into_iter().next().unwrap_or_default());
        }
        if !may_patch {
            missing.push(entry.to_string());
        }
        Ok(Self {
            missing,
            relays: open,
            clusters,
            admin,
        })
    }

    /// Refuses a caller who lacks what cannot be done without.
    pub fn check(&self, namespace: &str) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(
            format!("you may not {}", self.missing.join(", nor ")),
            format!(
                "an administrator binds the roles to you: kubectl create rolebinding … -n {} --clusterrole={1} --user=YOU, and the role {1} of the relays' namespace",
                quote(namespace),
                names::DEVELOPER_ROLE
            ),
        ))
    }
}

/// What is missing for a tunnel to each relay.
async fn tunnels(
    cluster: &Cluster,
    namespace: &str,
    replicas: u16,
) -> Result<Vec<Vec<String>>, ClusterError> {
    let mut asking = tokio::task::JoinSet::new();
    for replica in 0..replicas {
        let (cluster, namespace) = (cluster.clone(), namespace.to_owned());
        asking.spawn(async move {
            let relay = names::relay_replica(replica);
            let [get, create] = &tunnel(&namespace, &relay);
            let (may_get, may_create) = tokio::try_join!(cluster.can(get), cluster.can(create))?;
            let missing = [(get, may_get), (create, may_create)].into_iter();
            let missing = missing
                .filter(|(_, may)| !may)
                .map(|(right, _)| right.to_string());
            Ok((replica, missing.collect()))
        });
    }
    let answers: Result<BTreeMap<u16, Vec<String>>, ClusterError> =
        asking.join_all().await.into_iter().collect();
    Ok(answers?.into_values().collect())
}

async fn all(cluster: &Cluster, rights: &[Right<'_>]) -> Result<bool, ClusterError> {
    for right in rights {
        if !cluster.can(right).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_done_without_is_a_reason_to_refuse() {
        let mut rights = Rights {
            missing: Vec::new(),
            relays: [0].into(),
            clusters: false,
            admin: false,
        };
        assert!(rights.check("shop").is_ok());
        rights.missing = vec![
            "patch wasmplugins x in shop".to_owned(),
            "get pods".to_owned(),
        ];
        let refusal = rights.check("shop").unwrap_err().to_string();
        assert!(
            refusal.starts_with("error: you may not patch wasmplugins x in shop, nor get pods\n"),
            "{refusal}"
        );
        assert!(refusal.contains("--clusterrole=injector-developer"));
    }
}

//! What the caller may do, asked of the API server before anything is opened or written.

use crate::cluster::{Cluster, ClusterError, Right, kind};
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::manifest::istio::names;

/// The rights that an intercept takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// What is missing and cannot be done without, as it stands in a sentence.
    missing: Vec<String>,
    /// May write the intercept's own EnvoyFilter; without it, the shared cluster of a relay is used.
    pub clusters: bool,
    /// May forward ports to the workload's pods; without it, nobody can tell whether the replicas have taken a change.
    pub admin: bool,
}

impl Rights {
    /// Asks. `plugin` is the workload's WasmPlugin, `relays` the namespace of the relays.
    pub async fn ask(
        cluster: &Cluster,
        namespace: &str,
        plugin: &str,
        relays: &str,
    ) -> Result<Self, ClusterError> {
        let here = Some(namespace);
        let relay = names::relay_replica(0);
        // Kubernetes asks for `get` today, for `create` too from 1.35 on.
        let tunnel = ["get", "create"].map(|verb| {
            Right::new(verb, &kind::POD, Some(relays))
                .of("portforward")
                .on(&relay)
        });
        let entries = Right::new("patch", &kind::WASM_PLUGIN, here).on(plugin);
        let admin =
            ["get", "create"].map(|verb| Right::new(verb, &kind::POD, here).of("portforward"));
        let clusters =
            ["create", "patch", "delete"].map(|verb| Right::new(verb, &kind::ENVOY_FILTER, here));
        let [may_get_tunnel, may_create_tunnel] = &tunnel;
        let (tunnel_get, tunnel_create, may_patch, admin, clusters) = tokio::try_join!(
            cluster.can(may_get_tunnel),
            cluster.can(may_create_tunnel),
            cluster.can(&entries),
            all(cluster, &admin),
            all(cluster, &clusters),
        )?;
        let needed = [
            (may_get_tunnel, tunnel_get),
            (may_create_tunnel, tunnel_create),
            (&entries, may_patch),
        ];
        let missing = needed.into_iter().filter(|(_, allowed)| !allowed);
        Ok(Self {
            missing: missing.map(|(right, _)| right.to_string()).collect(),
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

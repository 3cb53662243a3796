//! What the caller may do, asked of the API server before anything is opened or written.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use intercept_manifest::istio::names;

use crate::access::Right;
use crate::{Cluster, ClusterError, kind};

/// To create, renew and end one's own Intercepts. This and the next are one list for `intercept` and `doctor`.
pub fn intercepts(namespace: &str) -> [Right<'_>; 3] {
    ["create", "patch", "delete"].map(|verb| Right::new(verb, &kind::INTERCEPT, Some(namespace)))
}

/// To forward ports to this pod, as a tunnel to a relay takes it; none of them can be done without.
pub fn port_forward_to<'a>(namespace: &'a str, pod: &'a str) -> [Right<'a>; PORT_FORWARD.len()] {
    port_forward(namespace).map(|right| right.on(pod))
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
    pub missing: Vec<String>,
    /// The relays to whose pods the caller may forward ports, by number.
    pub relays: BTreeSet<u16>,
}

impl Rights {
    /// Asks. `relays` is the namespace of the relays, with how many there are.
    pub async fn ask(
        cluster: &Cluster,
        namespace: &str,
        (relays, replicas): (&str, u16),
    ) -> Result<Self, ClusterError> {
        let own = intercepts(namespace);
        let ((open, mut missing), may) = tokio::try_join!(
            self::relays(cluster, relays, replicas),
            try_join_all(own.iter().map(|right| cluster.can(right))),
        )?;
        let lacking = own.iter().zip(may).filter(|(_, may)| !may);
        missing.extend(lacking.map(|(right, _)| right.to_string()));
        Ok(Self {
            missing,
            relays: open,
        })
    }
}

/// The relays to whose pods the caller may forward ports, by number. One is enough; where there is none, also what is missing for the first one.
pub async fn relays(
    cluster: &Cluster,
    namespace: &str,
    replicas: u16,
) -> Result<(BTreeSet<u16>, Vec<String>), ClusterError> {
    let tunnels = tunnels(cluster, namespace, replicas).await?;
    let open: BTreeSet<u16> = (0..)
        .zip(&tunnels)
        .filter(|(_, missing)| missing.is_empty())
        .map(|(relay, _)| relay)
        .collect();
    let first = tunnels.into_iter().next().filter(|_| open.is_empty());
    Ok((open, first.unwrap_or_default()))
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
            let [get, create] = &port_forward_to(&namespace, &relay);
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

//! The relays of a cluster: which are up, which one takes a tunnel, and the way there, a port-forward to its pod.

use std::collections::BTreeSet;
use std::io;

use intercept_kube::pods;
use intercept_kube::{Cluster, ClusterError, kind};
use intercept_manifest::istio::install::CONTROL_PORT;
use intercept_manifest::istio::names;
use intercept_tunnel::developer::{Connect, Connecting, Stream};
use intercept_tunnel::presence::{self, Presence, Traffic};
use intercept_tunnel::relay_end::RelayEnd;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{CliError, Result};
use crate::shell::quote;

/// The relay's container.
const CONTAINER: &str = "relay";

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The relays of one installation.
#[derive(Debug, Clone)]
pub struct Relays {
    cluster: Cluster,
    namespace: String,
    /// How many the gate knows, counted from 0.
    replicas: u16,
}

impl Relays {
    /// Those in this namespace.
    pub fn new(cluster: &Cluster, namespace: &str, replicas: u16) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            replicas,
        }
    }

    /// Where they are.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The way to one of them.
    pub fn end(&self, replica: u16) -> RelayEnd {
        let pod = names::relay_replica(replica);
        let hint = format!(
            "kubectl -n {} get pod {pod} -o wide; kubectl -n {0} logs {pod} -c relay",
            quote(&self.namespace)
        );
        let forward = Forward {
            cluster: self.cluster.clone(),
            namespace: self.namespace.clone(),
            pod: pod.clone(),
            port: CONTROL_PORT,
        };
        RelayEnd::new(format!("{pod} in {}", self.namespace), hint, forward)
    }

    /// All of them.
    pub fn ends(&self) -> impl Iterator<Item = RelayEnd> {
        (0..self.replicas).map(|replica| self.end(replica))
    }

    /// The relay for the tunnel of an intercept of this name, among those that are up, of a version that this build can talk to, and allowed to the caller.
    pub async fn choose(&self, name: &str, allowed: &BTreeSet<u16>) -> Result<u16> {
        self.check_version().await?;
        let mut ready = Vec::new();
        for replica in allowed
            .iter()
            .copied()
            .filter(|replica| *replica < self.replicas)
        {
            if self
                .pod(replica)
                .await?
                .is_some_and(|pod| pods::is_ready(&pod))
            {
                ready.push(replica);
            }
        }
        let others = usize::from(self.replicas).saturating_sub(allowed.len());
        choice(name, &ready).ok_or_else(|| self.none_ready(others))
    }

    /// What is under way through these tunnels at one of them, with their addresses. One that does not run has none.
    pub async fn traffic(&self, replica: u16, addresses: Vec<String>) -> Vec<(String, Traffic)> {
        let shown: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut traffic = presence::traffic(&self.end(replica), &shown).await;
        if traffic.contains(&Traffic::Unknown) && self.is_down(replica).await {
            traffic.fill(Traffic::None);
        }
        addresses.into_iter().zip(traffic).collect()
    }

    async fn is_down(&self, replica: u16) -> bool {
        let pod = self.pod(replica).await;
        pod.is_ok_and(|pod| pod.is_none_or(|pod| !pods::runs(&pod, CONTAINER)))
    }

    /// `others`: to how many the caller may not forward ports.
    fn none_ready(&self, others: usize) -> CliError {
        let namespace = &self.namespace;
        CliError::failed(
            match others {
                0 => format!("no relay of {namespace} is ready"),
                _ => format!(
                    "no relay of {namespace} to whose pod you may forward ports is ready; to {others} of {} you may not",
                    self.replicas
                ),
            },
            format!(
                "kubectl -n {} get pods -l app.kubernetes.io/name={}",
                quote(namespace),
                names::RELAY
            ),
        )
    }

    async fn pod(&self, replica: u16) -> Result<Option<Value>, ClusterError> {
        let name = names::relay_replica(replica);
        self.cluster
            .get(&kind::POD, Some(&self.namespace), &name)
            .await
    }

    async fn check_version(&self) -> Result<()> {
        let set = self
            .cluster
            .get(&kind::STATEFUL_SET, Some(&self.namespace), names::RELAY)
            .await?;
        check_version(&self.namespace, set.as_ref())
    }
}

/// Refuses relays that this build cannot talk to. Those of an installation that does not say are tried.
fn check_version(namespace: &str, set: Option<&Value>) -> Result<()> {
    let Some(set) = set else {
        return Err(CliError::failed(
            format!("there are no relays in {namespace}"),
            "an operator installs them: injector install",
        ));
    };
    let version = set["metadata"]["labels"]["app.kubernetes.io/version"].as_str();
    match version {
        Some(version) if !is_compatible(version, VERSION) => Err(CliError::failed(
            format!("the relays of {namespace} are version {version}, this is {VERSION}"),
            "use the version of the relays, or an operator upgrades them: injector install",
        )),
        _ => Ok(()),
    }
}

/// The relay for a new intercept: by a hash of its name, which spreads names and gives a name that is used again the same relay, as long as the same relays are ready.
///
/// If an upstream cluster changed to another relay between the two attempts of a request, the second attempt would go to that relay too: Envoy's `previous_priorities` excludes
/// only hosts that it finds in the current cluster.
fn choice(name: &str, ready: &[u16]) -> Option<u16> {
    let hash = Sha256::digest(name);
    let hash = u32::from_be_bytes(*hash.first_chunk()?);
    let count = u32::try_from(ready.len()).ok().filter(|count| *count > 0)?;
    ready.get(usize::try_from(hash % count).ok()?).copied()
}

/// Before 1.0, the second number says whether two versions understand each other.
pub fn is_compatible(one: &str, other: &str) -> bool {
    let head = |version: &str| {
        let mut numbers = version
            .split(['.', '-', '+'])
            .map(|number| number.parse::<u64>().ok());
        let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
        major.map(|major| (major, minor.filter(|_| major == 0)))
    };
    head(one) == head(other)
}

/// A port-forward to one pod, a relay's for instance; each connection is a new one, always to the same relay, since the intercept's cluster names it.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    pub(super) cluster: Cluster,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) port: u16,
}

impl Connect for Forward {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = self
                .cluster
                .connect_pod(&self.namespace, &self.pod, self.port)
                .await
                .map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// A tunnel ends at one relay; which one, the relays say themselves.
pub async fn ask_relays(
    relays: impl Iterator<Item = RelayEnd>,
    addresses: &[&str],
) -> Vec<Presence> {
    let addresses: Vec<String> = addresses
        .iter()
        .map(|&address| address.to_owned())
        .collect();
    let mut asking = tokio::task::JoinSet::new();
    for end in relays {
        let addresses = addresses.clone();
        asking.spawn(async move {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            presence::ask_all(&end, &addresses).await
        });
    }
    let mut known = vec![None; addresses.len()];
    while let Some(answers) = asking.join_next().await {
        for (known, answer) in known.iter_mut().zip(answers.unwrap_or_default()) {
            *known = Some(known.map_or(answer, |known: Presence| known.or(answer)));
        }
    }
    known
        .into_iter()
        .map(|known| known.unwrap_or(Presence::Unknown))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_spread_over_ready_relays() {
        let chosen = |name: &str| choice(name, &[0, 1, 2]).expect("one");
        assert_eq!(chosen("orders-bob"), chosen("orders-bob"));
        let names = (0..100).map(|number| format!("orders-{number}"));
        let mut counts = [0; 3];
        for name in names {
            counts[usize::from(chosen(&name))] += 1;
        }
        assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
        assert_eq!(choice("orders-bob", &[2]), Some(2));
        assert_eq!(choice("orders-bob", &[]), None);
    }

    #[test]
    fn missing_or_incompatible_relays_are_refused() {
        let set =
            |version: &str| json!({"metadata": {"labels": {"app.kubernetes.io/version": version}}});
        let other = format!("the relays of relays are version 99.0.0, this is {VERSION}");
        for (set, expected) in [
            (Some(set(VERSION)), None),
            (Some(json!({})), None),
            (Some(set("99.0.0")), Some(other.as_str())),
            (None, Some("there are no relays in relays")),
        ] {
            let refused = check_version("relays", set.as_ref()).err();
            assert_eq!(refused.as_ref().map(CliError::error), expected, "{set:?}");
            let is_for_an_operator =
                |failure: &CliError| failure.hint().ends_with("injector install");
            assert!(
                refused.as_ref().is_none_or(is_for_an_operator),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn compatible_versions_share_major_or_minor() {
        for (one, other, expected) in [
            ("0.1.0", "0.1.9", true),
            ("0.1.0", "0.2.0", false),
            ("1.4.0", "1.9.2-rc1", true),
            ("1.0.0", "2.0.0", false),
            ("dev", "0.1.0", false),
        ] {
            assert_eq!(is_compatible(one, other), expected, "{one} {other}");
        }
    }
}

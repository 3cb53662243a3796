//! Developers' connections into the cluster, namespace by namespace: what an operator said, what it comes to, and what is taken away.

use intercept_kube::resolve::name_of;
use intercept_kube::{Cluster, Kind, kind, pods};
use intercept_manifest::istio::install::{ClusterInstall, Outbound, outbound_objects};
use intercept_manifest::istio::reach::{OutboundSettings, Reach};
use intercept_manifest::istio::{Object, names};
use serde_json::Value;

use super::apply::{self, Changed};
use super::{OURS, plan};
use crate::error::{CliError, Result};
use crate::shell::quote;

/// What a service account that is no longer named leaves behind.
pub const SETS: &[&Kind] = &[&kind::STATEFUL_SET, &kind::ROLE];

/// What is in the namespace, in the order in which it is removed: first what runs.
const PARTS: &[&Kind] = &[
    &kind::STATEFUL_SET,
    &kind::SERVICE,
    &kind::ROLE,
    &kind::SIDECAR,
    &kind::NETWORK_POLICY,
    &kind::SERVICE_ACCOUNT,
];

/// What an operator said; where nothing, as it is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Services of other namespaces.
    pub to: Vec<Reach>,
    /// Service accounts besides our own.
    pub accounts: Vec<String>,
}

impl Said {
    /// A list that is given replaces the one before. What is meant anyway, the namespace itself and our own account, is the way to say: nothing else.
    pub fn outbound(&self, namespace: &str, installed: Option<OutboundSettings>) -> Outbound {
        let (to, accounts) = match installed {
            Some(settings) => (settings.to, settings.service_accounts),
            None => Default::default(),
        };
        let own = Reach {
            namespace: namespace.to_owned(),
            service: None,
            port: None,
        };
        let mut to = distinct(if self.to.is_empty() { &to } else { &self.to });
        to.retain(|reach| *reach != own);
        let said = match self.accounts.is_empty() {
            true => &accounts,
            false => &self.accounts,
        };
        let mut service_accounts = distinct(said);
        service_accounts.retain(|account| account != names::OUTBOUND);
        Outbound {
            namespace: namespace.to_owned(),
            to,
            service_accounts,
        }
    }
}

fn distinct<T: Clone + PartialEq>(all: &[T]) -> Vec<T> {
    let mut distinct: Vec<T> = Vec::new();
    for one in all {
        if !distinct.contains(one) {
            distinct.push(one.clone());
        }
    }
    distinct
}

/// What is installed in a namespace; `None`: nothing, or nothing that this version can read.
pub async fn installed(cluster: &Cluster, namespace: &str) -> Result<Option<OutboundSettings>> {
    let set = cluster
        .get(&kind::STATEFUL_SET, Some(namespace), names::OUTBOUND)
        .await?;
    Ok(set.as_ref().and_then(OutboundSettings::read))
}

/// The objects of a namespace.
pub fn objects(install: &ClusterInstall, outbound: &Outbound) -> Result<Vec<Object>> {
    outbound_objects(install, outbound).map_err(plan::invalid)
}

/// Refuses service accounts that are not there: no pod would start.
pub async fn check_accounts(cluster: &Cluster, outbound: &Outbound) -> Result<()> {
    let namespace = &outbound.namespace;
    for account in &outbound.service_accounts {
        let there = cluster
            .get(&kind::SERVICE_ACCOUNT, Some(namespace), account)
            .await?;
        if there.is_none() {
            return Err(CliError::failed(
                format!("--outbound-as {account}: service account not found in {namespace}"),
                format!("kubectl -n {} get serviceaccounts", quote(namespace)),
            ));
        }
    }
    Ok(())
}

/// The other namespaces with connections that these relays admit, each with the objects of now.
pub async fn others(
    cluster: &Cluster,
    install: &ClusterInstall,
    except: Option<&str>,
) -> Result<Vec<(String, Vec<Object>)>> {
    let mut others = Vec::new();
    for (namespace, settings) in all(cluster).await? {
        if settings.mesh.namespace == install.mesh.namespace && Some(&*namespace) != except {
            let outbound = Said::default().outbound(&namespace, Some(settings));
            others.push((namespace, objects(install, &outbound)?));
        }
    }
    Ok(others)
}

/// Is the namespace gone, or being deleted? Nothing can be applied in it then.
pub async fn ends_with_namespace(cluster: &Cluster, namespace: &str) -> bool {
    let found = cluster.get(&kind::NAMESPACE, None, namespace).await;
    found.is_ok_and(|found| {
        found.is_none_or(|found| found["metadata"]["deletionTimestamp"].is_string())
    })
}

/// All namespaces that have some; none where the caller may not look.
async fn all(cluster: &Cluster) -> Result<Vec<(String, OutboundSettings)>> {
    let sets = match cluster.list(&kind::STATEFUL_SET, None, Some(&ours())).await {
        Err(error) if error.is_forbidden() => return Ok(Vec::new()),
        sets => sets?,
    };
    let own = sets.iter().filter(|set| name_of(set) == names::OUTBOUND);
    let known = own.filter_map(|set| {
        let namespace = set["metadata"]["namespace"].as_str()?;
        Some((namespace.to_owned(), OutboundSettings::read(set)?))
    });
    Ok(known.collect())
}

fn ours() -> String {
    format!("{OURS},app.kubernetes.io/name={}", names::OUTBOUND)
}

/// What is wrong with the sidecar of a pod, if anything: then no policy of the mesh sees who connects.
pub fn fault(pod: &Value) -> Option<String> {
    let fault = pods::faults(pod, &[])
        .into_iter()
        .find(|fault| matches!(fault, pods::Fault::NoSidecar | pods::Fault::HostNetwork))?;
    Some(format!(
        "{}: {fault}: no relay answers it, so no developer can connect",
        name_of(pod)
    ))
}

/// What to do about it.
pub fn fault_hint(namespace: &str) -> String {
    format!(
        "have the mesh inject sidecars into {0}: kubectl get namespace {0} --show-labels; then: kubectl -n {0} delete pod -l app.kubernetes.io/name={1}",
        quote(namespace),
        names::OUTBOUND
    )
}

/// Takes those of a namespace away.
pub async fn remove(cluster: &Cluster, namespace: &str) -> Result<Vec<Changed>> {
    let mut removed = Vec::new();
    let ours = ours();
    for kind in PARTS {
        for object in cluster.list(kind, Some(namespace), Some(&ours)).await? {
            apply::remove(
                cluster,
                kind,
                Some(namespace),
                name_of(&object),
                &mut removed,
            )
            .await?;
        }
    }
    // SessionOptions the relays, wherever those are.
    let kind = &kind::AUTHORIZATION_POLICY;
    for policy in cluster.list(kind, None, Some(&ours)).await? {
        if name_of(&policy) == names::outbound_presence(namespace) {
            let of = policy["metadata"]["namespace"].as_str();
            apply::remove(cluster, kind, of, name_of(&policy), &mut removed).await?;
        }
    }
    Ok(removed)
}

/// Takes those away that relays of this namespace admit, or all.
pub async fn remove_all(cluster: &Cluster, relays: Option<&str>) -> Result<Vec<Changed>> {
    let mut removed = Vec::new();
    for (namespace, settings) in all(cluster).await? {
        if relays.is_none_or(|relays| settings.mesh.namespace == relays) {
            removed.extend(remove(cluster, &namespace).await?);
        }
    }
    Ok(removed)
}

/// What an operator does next.
pub fn note(outbound: &Outbound) -> String {
    let namespace = &outbound.namespace;
    let accounts = outbound.service_accounts.iter().map(|it| Some(it.as_str()));
    let roles: Vec<String> = std::iter::once(None)
        .chain(accounts)
        .map(|account| format!("--role={}", names::outbound_set(account)))
        .collect();
    format!(
        "developers connect from {namespace} into the cluster once a role is bound to them ({}): kubectl -n {} create rolebinding injector-outbound {} --group=GROUP",
        roles.join(", "),
        quote(namespace),
        roles[0]
    )
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::example;

    use super::*;

    fn settings() -> OutboundSettings {
        OutboundSettings {
            mesh: example::install().mesh,
            to: vec!["data/postgres:5432".parse().expect("a reach")],
            service_accounts: vec!["orders".to_owned()],
        }
    }

    #[test]
    fn settings_are_kept_until_given_again() {
        let kept = Said::default().outbound("shop", Some(settings()));
        assert_eq!(kept.to, settings().to);
        assert_eq!(kept.service_accounts, ["orders"]);
        let other = Said {
            to: vec!["other".parse().expect("a reach")],
            accounts: vec!["b".to_owned(), "b".to_owned()],
        };
        let given = other.outbound("shop", Some(settings()));
        assert_eq!(
            (given.to, given.service_accounts),
            (other.to, vec!["b".to_owned()])
        );
        let nothing = Said {
            to: vec!["shop".parse().expect("a reach")],
            accounts: vec![names::OUTBOUND.to_owned()],
        };
        let nothing = nothing.outbound("shop", Some(settings()));
        assert_eq!((nothing.to, nothing.service_accounts), (vec![], vec![]));
    }

    #[test]
    fn settings_are_read_back() {
        let outbound = Said::default().outbound("shop", Some(settings()));
        let objects = objects(&example::install(), &outbound).expect("rendered");
        let sets: Vec<&Object> = objects
            .iter()
            .filter(|object| object.kind() == "StatefulSet")
            .collect();
        let names: Vec<&str> = sets.iter().map(|set| set.name()).collect();
        assert_eq!(names, ["injector-outbound", "injector-outbound-orders"]);
        for set in sets {
            assert_eq!(OutboundSettings::read(set.value()), Some(settings()));
        }
    }

    #[test]
    fn every_part_is_removed() {
        let outbound = Said::default().outbound("shop", Some(settings()));
        for object in objects(&example::install(), &outbound).expect("rendered") {
            let kind = Kind::of(object.value()).expect("a known kind");
            let is_beside_relays = *kind == kind::AUTHORIZATION_POLICY;
            assert!(
                is_beside_relays || PARTS.contains(&kind),
                "{}",
                object.kind()
            );
            let name = &object.value()["metadata"]["labels"]["app.kubernetes.io/name"];
            assert_eq!(name, names::OUTBOUND, "{}", object.name());
        }
    }
}

//! Where connections into the cluster are opened: a pod of the workload's namespace, which an operator installed, by a port-forward.

use intercept_kube::{Cluster, kind, rights};
use intercept_manifest::istio::install::OUTBOUND_PORT;
use intercept_manifest::istio::names;
use intercept_manifest::istio::reach::OutboundSettings;
use intercept_tunnel::relay_end::RelayEnd;
use serde_json::Value;

use super::relay::{Forward, Relays, VERSION, is_compatible};
use crate::error::{CliError, Result};
use crate::shell::quote;

/// The one that the caller may use.
#[derive(Debug)]
pub struct Outbound {
    cluster: Cluster,
    namespace: String,
    /// The StatefulSet, and the Role that goes with it.
    set: String,
    settings: OutboundSettings,
}

/// Why a StatefulSet cannot be used.
enum Refused {
    Missing,
    /// What the caller may not do.
    Forbidden(String),
}

impl Outbound {
    /// The one under this service account, where there is one that the caller may use; else the namespace's own.
    pub async fn find(cluster: &Cluster, namespace: &str, account: Option<&str>) -> Result<Self> {
        let mut refused = Refused::Missing;
        let accounts = account.map(Some).into_iter().chain([None]);
        for set in accounts.map(names::outbound_set) {
            match usable(cluster, namespace, &set).await? {
                Ok(stateful_set) => return Self::of(cluster, namespace, set, &stateful_set),
                // Of the namespace's own more is said, unless there is none.
                Err(Refused::Missing) => {}
                Err(forbidden) => refused = forbidden,
            }
        }
        Err(failure(namespace, refused))
    }

    fn of(cluster: &Cluster, namespace: &str, set: String, object: &Value) -> Result<Self> {
        let version = object["metadata"]["labels"]["app.kubernetes.io/version"].as_str();
        let settings = OutboundSettings::read(object);
        let settings = settings.filter(|_| version.is_some_and(|it| is_compatible(it, VERSION)));
        let settings = settings.ok_or_else(|| {
            CliError::failed(
                format!(
                    "outbound connections: StatefulSet {namespace}/{set} is of version {}, this is {VERSION}",
                    version.unwrap_or("unknown")
                ),
                format!(
                    "use that version, or an administrator upgrades it: injector install -n {} --outbound",
                    quote(namespace)
                ),
            )
        })?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            set,
            settings,
        })
    }

    /// The way there.
    pub fn end(&self) -> RelayEnd {
        let (namespace, pod) = (&self.namespace, names::outbound_pod(&self.set));
        let hint = format!(
            "kubectl -n {} get pod {pod} -o wide; kubectl -n {0} logs {pod} -c outbound",
            quote(namespace)
        );
        let name = format!("pod {pod} in {namespace}");
        let forward = Forward {
            cluster: self.cluster.clone(),
            namespace: namespace.clone(),
            pod,
            port: OUTBOUND_PORT,
        };
        RelayEnd::new(name, hint, forward)
    }

    /// The relay for a tunnel of this caller's, which proves who connects.
    pub async fn relay(&self, owner: &str) -> Result<RelayEnd> {
        let mesh = &self.settings.mesh;
        let relays = Relays::new(&self.cluster, &mesh.namespace, mesh.relay_replicas);
        let (allowed, missing) =
            rights::relays(&self.cluster, &mesh.namespace, mesh.relay_replicas).await?;
        super::failure::of_rights(&self.namespace, &missing)?;
        Ok(relays.end(relays.choose(owner, &allowed).await?))
    }
}

/// The StatefulSet, if it is there and the caller may forward ports to its pod.
async fn usable(
    cluster: &Cluster,
    namespace: &str,
    set: &str,
) -> Result<std::result::Result<Value, Refused>> {
    let stateful_set = match cluster.get(&kind::STATEFUL_SET, Some(namespace), set).await {
        Ok(Some(stateful_set)) => stateful_set,
        Ok(None) => return Ok(Err(Refused::Missing)),
        Err(error) if error.is_forbidden() => {
            let what = format!("get statefulsets {set} in {namespace}");
            return Ok(Err(Refused::Forbidden(what)));
        }
        Err(error) => return Err(error.into()),
    };
    let pod = names::outbound_pod(set);
    for right in rights::port_forward_to(namespace, &pod) {
        if !cluster.can(&right).await? {
            return Ok(Err(Refused::Forbidden(right.to_string())));
        }
    }
    Ok(Ok(stateful_set))
}

fn failure(namespace: &str, refused: Refused) -> CliError {
    let place = quote(namespace);
    match refused {
        Refused::Missing => CliError::failed(
            format!("outbound connections: not open in namespace {namespace}"),
            format!("an administrator opens them: injector install -n {place} --outbound"),
        ),
        Refused::Forbidden(what) => CliError::failed(
            format!("outbound connections: you may not {what}"),
            format!(
                "an operator binds a role to you: kubectl -n {place} create rolebinding {0} --role={0} --user=YOU; \
                 if there is no such role: injector install -n {place} --outbound",
                names::OUTBOUND
            ),
        ),
    }
}

//! Resolves TARGET to one workload and its ports: for developers, operators and the doctor alike. Lists of objects in, one workload or an error out;
//! only [`Listed::read`] asks the API server.

mod error;
pub mod ports;

use intercept_manifest::istio::Kind;
use serde_json::Value;

pub use self::error::ResolveError;
use crate::{Cluster, ClusterError, kind};

/// What TARGET asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadName<'t> {
    /// A Service, else a workload of any kind.
    Named(&'t str),
    /// `svc/NAME`.
    Service(&'t str),
    /// `deploy/NAME`, `sts/NAME` or `ds/NAME`.
    Workload(Kind, &'t str),
}

/// Reads TARGET.
pub fn wanted(target: &str) -> Result<WorkloadName<'_>, ResolveError> {
    let Some((kind, name)) = target.split_once('/') else {
        return Ok(WorkloadName::Named(target));
    };
    let kind = kind.to_ascii_lowercase();
    let kind = kind.split_once('.').map_or(kind.as_str(), |(kind, _)| kind);
    match kind {
        "svc" | "service" | "services" => Ok(WorkloadName::Service(name)),
        "deploy" | "deployment" | "deployments" => {
            Ok(WorkloadName::Workload(Kind::Deployment, name))
        }
        "sts" | "statefulset" | "statefulsets" => {
            Ok(WorkloadName::Workload(Kind::StatefulSet, name))
        }
        "ds" | "daemonset" | "daemonsets" => Ok(WorkloadName::Workload(Kind::DaemonSet, name)),
        _ => Err(ResolveError::Prefix {
            target: target.to_owned(),
            name: name.to_owned(),
        }),
    }
}

/// What a namespace holds, as far as it can be a target; objects as the API server lists them.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Its name.
    pub namespace: String,
    /// Its Services.
    pub services: Vec<Value>,
    /// Its workloads, each with its kind.
    pub workloads: Vec<(Kind, Value)>,
}

impl Listed {
    /// Asks the API server; `labels`, as in kubectl's `--selector`, narrow the workloads.
    pub async fn read(
        cluster: &Cluster,
        namespace: &str,
        labels: Option<&str>,
    ) -> Result<Self, ClusterError> {
        let within = Some(namespace);
        let (services, deployments, stateful_sets, daemon_sets) = tokio::try_join!(
            cluster.list(&kind::SERVICE, within, None),
            cluster.list(&kind::DEPLOYMENT, within, labels),
            cluster.list(&kind::STATEFUL_SET, within, labels),
            cluster.list(&kind::DAEMON_SET, within, labels),
        )?;
        let lists = [
            (Kind::Deployment, deployments),
            (Kind::StatefulSet, stateful_sets),
            (Kind::DaemonSet, daemon_sets),
        ];
        let workloads = lists
            .into_iter()
            .flat_map(|(kind, list)| list.into_iter().map(move |object| (kind, object)));
        Ok(Self {
            namespace: namespace.to_owned(),
            services,
            workloads: workloads.collect(),
        })
    }
}

/// One workload, and the Services that lead to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// As the API server has it.
    pub object: Value,
    /// The Services by which it was meant: the one that was named, else all that select its pods.
    pub services: Vec<Value>,
}

impl Resolved {
    /// `spec.template`.
    pub fn template(&self) -> &Value {
        template(&self.object)
    }

    /// `deployment/orders`, as it can be named again.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.lower_case(), self.name)
    }
}

/// Finds the workload. A bare name is a Service's that leads to one, else a workload's.
pub fn find(wanted: WorkloadName<'_>, listed: &Listed) -> Result<Resolved, ResolveError> {
    match wanted {
        WorkloadName::Workload(kind, name) => by_name(listed, name, Some(kind))?
            .ok_or_else(|| missing(listed, &format!("{}/{name}", kind.lower_case()))),
        WorkloadName::Service(name) => {
            by_service(listed, name)?.ok_or_else(|| missing(listed, &format!("svc/{name}")))
        }
        WorkloadName::Named(name) => match by_service(listed, name) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => by_name(listed, name, None)?.ok_or_else(|| missing(listed, name)),
            // A Service that leads nowhere does not hide a workload of its name.
            Err(leads_nowhere) => match by_name(listed, name, None)? {
                Some(found) if found.services.iter().all(|one| name_of(one) != name) => Ok(found),
                _ => Err(leads_nowhere),
            },
        },
    }
}

fn by_name(
    listed: &Listed,
    name: &str,
    kind: Option<Kind>,
) -> Result<Option<Resolved>, ResolveError> {
    let matching = listed
        .workloads
        .iter()
        .filter(|(of, object)| kind.is_none_or(|kind| kind == *of) && name_of(object) == name);
    let matching: Vec<_> = matching.collect();
    let Some((kind, workload)) = only(&matching, name)? else {
        return Ok(None);
    };
    let selects = |service: &&Value| selects(service, template(workload));
    let services = listed.services.iter().filter(selects).cloned().collect();
    Ok(Some(found(*kind, workload, services)))
}

fn by_service(listed: &Listed, name: &str) -> Result<Option<Resolved>, ResolveError> {
    let Some(service) = listed
        .services
        .iter()
        .find(|service| name_of(service) == name)
    else {
        return Ok(None);
    };
    let matching = listed.workloads.iter();
    let matching: Vec<_> = matching
        .filter(|(_, workload)| selects(service, template(workload)))
        .collect();
    match only(&matching, name)? {
        Some((kind, workload)) => Ok(Some(found(*kind, workload, vec![service.clone()]))),
        None => Err(ResolveError::LeadsNowhere {
            service: name.to_owned(),
            namespace: listed.namespace.clone(),
        }),
    }
}

fn only<'w>(
    matching: &[&'w (Kind, Value)],
    target: &str,
) -> Result<Option<&'w (Kind, Value)>, ResolveError> {
    match matching {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        several => {
            let workloads = several.iter();
            let workloads = workloads
                .map(|(kind, workload)| format!("{}/{}", kind.lower_case(), name_of(workload)));
            Err(ResolveError::Ambiguous {
                target: target.to_owned(),
                workloads: workloads.collect(),
            })
        }
    }
}

fn found(kind: Kind, workload: &Value, services: Vec<Value>) -> Resolved {
    Resolved {
        kind,
        name: name_of(workload).to_owned(),
        object: workload.clone(),
        services,
    }
}

fn missing(listed: &Listed, target: &str) -> ResolveError {
    let services = listed.services.iter();
    let workloads = listed.workloads.iter().map(|(_, object)| object);
    ResolveError::NotFound {
        target: target.to_owned(),
        namespace: listed.namespace.clone(),
        known: services
            .chain(workloads)
            .map(|object| name_of(object).to_owned())
            .collect(),
    }
}

/// Does the Service select the pods of this template? One without a selector selects none.
fn selects(service: &Value, template: &Value) -> bool {
    let labels = &template["metadata"]["labels"];
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
    })
}

fn template(workload: &Value) -> &Value {
    &workload["spec"]["template"]
}

/// `metadata.name`.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;

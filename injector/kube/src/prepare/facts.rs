//! From a Deployment, StatefulSet or DaemonSet and what stands around it to the facts that its objects are rendered from.

use intercept_manifest::istio::{Kind, Port, Workload};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ServiceSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::labels::{Labels, contains};
use super::ports::{Offered, Service, offered};
use super::{Spoken, Unpreparable, sidecar};

/// What stands around a workload, objects as the API server lists them.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Its namespace.
    pub namespace: &'a Value,
    /// The Services of its namespace.
    pub services: &'a [Value],
    /// The pods of its namespace.
    pub pods: &'a [Value],
    /// The `Sidecar` resources of its namespace.
    pub sidecars: &'a [Value],
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The workload with the ports that can be intercepted.
    pub workload: Workload,
    /// Ports that were left out, each with its reason.
    pub left_out: Vec<String>,
    /// Kubelet probes go through the filter: `all` would take them.
    pub probes_go_through: bool,
}

/// The facts of a workload; `ports` are those that were asked for, by name or number: all that can be intercepted where none were.
pub fn facts(
    kind: Kind,
    object: &Value,
    around: Around<'_>,
    ports: &[String],
) -> Result<Facts, Unpreparable> {
    let name = text(object, "/metadata/name");
    let label = format!("{}/{name}", kind.name());
    let template: PodTemplateSpec = part(&label, object, "/spec/template")?;
    let selector = selector(&label, object)?;
    let pod = template.spec.clone().unwrap_or_default();
    if pod.host_network == Some(true) {
        return Err(Unpreparable::HostNetwork(label));
    }
    let metadata = template.metadata.clone().unwrap_or_default();
    let labels = metadata.labels.clone().unwrap_or_default();
    check_sidecar(&label, &metadata, &selector, around)?;
    let services = services(&label, &labels, around.services)?;
    let by_services = offered(&pod, &services);
    let listed = sidecar::resource(&labels, around.sidecars)
        .and_then(|resource| sidecar::ingress(resource, &by_services))
        .unwrap_or_else(|| by_services.into_iter().map(Ok).collect());
    let judged = listed
        .into_iter()
        .map(|port| {
            port.and_then(|port| judge(port, |number| sidecar::is_bypassed(&metadata, number)))
        })
        .collect();
    let (ports, left_out) = choose(&label, judged, ports)?;
    Ok(Facts {
        workload: Workload {
            kind,
            name: name.to_owned(),
            namespace: text(object, "/metadata/namespace").to_owned(),
            selector,
            ports,
        },
        left_out,
        probes_go_through: sidecar::probes_go_through(&metadata),
    })
}

fn selector(label: &str, object: &Value) -> Result<Labels, Unpreparable> {
    let expressions = object.pointer("/spec/selector/matchExpressions");
    if expressions
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
    {
        return Err(Unpreparable::Expressions(label.to_owned()));
    }
    part(label, object, "/spec/selector/matchLabels")
}

/// Live pods tell what is; without any, the injector's own rules tell what will be.
fn check_sidecar(
    label: &str,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    selector: &Labels,
    around: Around<'_>,
) -> Result<(), Unpreparable> {
    let pods: Vec<&Value> = around
        .pods
        .iter()
        .filter(|pod| is_live(pod, selector))
        .collect();
    let without = pods.iter().filter(|pod| !sidecar::has_sidecar(pod)).count();
    if without > 0 {
        return Err(Unpreparable::NoSidecar {
            workload: label.to_owned(),
            without,
            pods: pods.len(),
        });
    }
    if pods.is_empty() && !sidecar::is_injected(metadata, around.namespace) {
        return Err(Unpreparable::NotInjected(label.to_owned()));
    }
    Ok(())
}

fn is_live(pod: &Value, selector: &Labels) -> bool {
    let labels: Labels =
        serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    let is_over = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    let is_leaving = pod.pointer("/metadata/deletionTimestamp").is_some();
    contains(&labels, selector) && !is_over && !is_leaving
}

/// The Services that select these pods.
fn services(label: &str, labels: &Labels, all: &[Value]) -> Result<Vec<Service>, Unpreparable> {
    let mut services = Vec::new();
    for object in all {
        let spec: ServiceSpec = part(label, object, "/spec")?;
        let selector = spec.selector.clone().unwrap_or_default();
        if !selector.is_empty() && contains(labels, &selector) {
            services.push(Service {
                name: text(object, "/metadata/name").to_owned(),
                created: text(object, "/metadata/creationTimestamp").to_owned(),
                spec,
            });
        }
    }
    Ok(services)
}

/// A port that can be intercepted, or why it cannot.
#[derive(Debug)]
struct Judged {
    port: Offered,
    verdict: Result<Port, String>,
}

fn judge(port: Offered, is_bypassed: impl Fn(u16) -> bool) -> Result<Judged, String> {
    let number = port.number;
    let verdict = match &port.spoken {
        _ if is_bypassed(number) => Err(format!(
            "port {number} goes past the sidecar (traffic.sidecar.istio.io annotations)"
        )),
        Spoken::Opaque(protocol) => Err(format!(
            "port {number} is `{protocol}` for Istio, expected HTTP"
        )),
        Spoken::Http(protocol) => Ok(Port {
            number,
            protocol: *protocol,
            app: port.app,
            services: port.services.clone(),
        }),
    };
    Ok(Judged { port, verdict })
}

/// Those that were asked for, all or none; without a wish, those that can be intercepted.
fn choose(
    label: &str,
    judged: Vec<Result<Judged, String>>,
    wanted: &[String],
) -> Result<(Vec<Port>, Vec<String>), Unpreparable> {
    if wanted.is_empty() {
        let (mut ports, mut reasons) = (Vec::new(), Vec::new());
        for judged in judged {
            match judged.and_then(|judged| judged.verdict) {
                Ok(port) => ports.push(port),
                Err(reason) => reasons.push(reason),
            }
        }
        return match ports.as_slice() {
            [] => Err(Unpreparable::NoPorts {
                workload: label.to_owned(),
                reasons,
            }),
            _ => Ok((ports, reasons)),
        };
    }
    let (known, unusable): (Vec<_>, Vec<_>) = judged.into_iter().partition(Result::is_ok);
    let known: Vec<Judged> = known.into_iter().flatten().collect();
    let mut ports: Vec<Port> = Vec::new();
    for wanted in wanted {
        let port = match named(&known, wanted) {
            Some(judged) => judged
                .verdict
                .clone()
                .map_err(|reason| Unpreparable::Port {
                    workload: label.to_owned(),
                    reason,
                })?,
            None => return Err(missing(label, wanted, &known, unusable)),
        };
        if !ports.iter().any(|chosen| chosen.number == port.number) {
            ports.push(port);
        }
    }
    ports.sort_by_key(|port| port.number);
    Ok((ports, Vec::new()))
}

/// A Service's port first: 80 is the Service's 80 even where some container listens on 80 as well.
fn named<'j>(known: &'j [Judged], wanted: &str) -> Option<&'j Judged> {
    let own = |judged: &&Judged| judged.port.number.to_string() != wanted;
    let is_named = |judged: &&Judged| judged.port.names.iter().any(|name| name == wanted);
    let by_service = known.iter().filter(own).find(is_named);
    by_service.or_else(|| known.iter().find(is_named))
}

fn missing(
    label: &str,
    wanted: &str,
    known: &[Judged],
    unusable: Vec<Result<Judged, String>>,
) -> Unpreparable {
    let is_meant = |reason: &String| reason.starts_with(&format!("port {wanted}:"));
    let reason = unusable.into_iter().filter_map(Result::err).find(is_meant);
    match reason {
        Some(reason) => Unpreparable::Port {
            workload: label.to_owned(),
            reason,
        },
        None => Unpreparable::NoSuchPort {
            workload: label.to_owned(),
            wanted: wanted.to_owned(),
            known: known.iter().map(|judged| judged.port.label()).collect(),
        },
    }
}

fn part<T: DeserializeOwned + Default>(
    label: &str,
    object: &Value,
    pointer: &str,
) -> Result<T, Unpreparable> {
    match object.pointer(pointer) {
        None => Ok(T::default()),
        Some(value) => T::deserialize(value).map_err(|error| Unpreparable::Unreadable {
            workload: label.to_owned(),
            reason: format!("{pointer}: {error}"),
        }),
    }
}

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

//! What one intercept adds to a prepared workload: its cluster and its entry.

use intercept_core::{Intercept, validate};
use serde_json::{Value, json};

use super::facts::{Mesh, Port, Workload};
use super::invalid::InvalidFacts;
use super::object::Object;
use super::{gate, names};
use crate::manifest::cluster;

/// An intercept that is about to be created.
#[derive(Debug, Clone, Copy)]
pub struct NewIntercept<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its entry. The cluster it names decides whether it has one of its own ([`own_cluster`]) or takes the workload's ([`shared_cluster`]).
    pub entry: &'a Intercept,
    /// The relay at which its tunnel ends.
    pub relay: u16,
}

/// The cluster that an intercept of this port has for itself: it bears the developer's name in access logs and in `istioctl proxy-config cluster`. Needs the right to write EnvoyFilters.
///
/// The port is in it for the admission policies, which see one object at a time: they hold the entry, and the fallback in the EnvoyFilter, to this one port.
pub fn own_cluster(name: &str, port: u16) -> String {
    cluster::intercept_name(port, name)
}

/// Does this entry, as it stands in a WasmPlugin, name the cluster that it has for itself?
pub fn is_own_cluster(name: &str, entry: &Value) -> bool {
    let port = entry["port"].as_u64().and_then(|port| port.try_into().ok());
    port.is_some_and(|port| entry["cluster"] == own_cluster(name, port))
}

/// The cluster that all intercepts share that end at this relay and take this port.
pub fn shared_cluster(relay: u16, port: u16) -> String {
    format!("intercept|relay-{relay}|{port}")
}

/// What is applied, in this order, under the intercept's own field manager; removed in the opposite one.
///
/// One EnvoyFilter (none with the shared cluster), then the WasmPlugin with nothing but this entry.
pub fn intercept_objects(
    mesh: &Mesh,
    workload: &Workload,
    new: NewIntercept<'_>,
) -> Result<Vec<Object>, InvalidFacts> {
    mesh.check_namespace(&workload.namespace)?;
    workload.check()?;
    let port = checked_port(mesh, workload, new)?;
    let mut objects = Vec::new();
    if new.entry.cluster == own_cluster(new.name, new.entry.port) {
        objects.push(envoy_filter(mesh, workload, port, new));
    }
    objects.push(entry(workload, new));
    Ok(objects)
}

/// The same EnvoyFilter as the controller writes it: it goes with the WasmPlugin, whose uid is `plugin_uid`, and says nothing of the lease.
pub fn controlled_filter(
    mesh: &Mesh,
    workload: &Workload,
    port: &Port,
    new: NewIntercept<'_>,
    plugin_uid: &str,
) -> Value {
    let mut filter = envoy_filter(mesh, workload, port, new).value().clone();
    if let Some(annotations) = filter["metadata"]["annotations"].as_object_mut() {
        annotations.remove(names::EXPIRES);
    }
    filter["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "name": names::of_workload(workload.kind, &workload.name),
        "uid": plugin_uid,
    }]);
    filter
}

fn checked_port<'a>(
    mesh: &Mesh,
    workload: &'a Workload,
    new: NewIntercept<'_>,
) -> Result<&'a Port, InvalidFacts> {
    let entry = new.entry;
    // The operator's limits are the caller's to check: what stands in the cluster decides, not what this build assumes.
    let allow_everything = intercept_core::Limits {
        allow_all: true,
        ..Default::default()
    };
    validate(new.name, entry, &allow_everything)
        .map_err(|error| InvalidFacts::Entry(format!("{}{error}", new.name)))?;
    if new.relay >= mesh.relay_replicas {
        return Err(InvalidFacts::NoSuchRelay {
            intercept: new.name.to_owned(),
            relay: new.relay,
            replicas: mesh.relay_replicas,
        });
    }
    let own = own_cluster(new.name, entry.port);
    let shared = shared_cluster(new.relay, entry.port);
    if entry.cluster != own && entry.cluster != shared {
        return Err(InvalidFacts::Cluster {
            intercept: new.name.to_owned(),
            own,
            shared,
            found: entry.cluster.clone(),
        });
    }
    let mut ports = workload.ports.iter();
    ports
        .find(|port| port.number == entry.port)
        .ok_or_else(|| InvalidFacts::NoSuchPort {
            intercept: new.name.to_owned(),
            port: entry.port,
            workload: workload.label(),
        })
}

fn envoy_filter(mesh: &Mesh, workload: &Workload, port: &Port, new: NewIntercept<'_>) -> Object {
    let name = names::of_intercept(new.name);
    let mut metadata = workload.metadata(&name);
    metadata["labels"] = names::labels("injector-intercept");
    metadata["labels"][names::INTERCEPT] = json!(new.name);
    metadata["annotations"][names::OWNER] = json!(new.entry.owner);
    metadata["annotations"][names::EXPIRES] = json!(new.entry.expires.to_string());
    let cluster = gate::aggregate(
        mesh,
        &workload.namespace,
        &own_cluster(new.name, port.number),
        port,
        new.relay,
    );
    Object::new(
        format!(
            "The cluster of the intercept `{}`: its name is what access logs show. Written by `injector intercept` before the entry below and removed after it; no listener drains.\n\
             Its whole shape is fixed: the admission policies take no other from a developer.",
            new.name
        ),
        json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": metadata,
            "spec": {
                "workloadSelector": {"labels": workload.selector},
                "configPatches": [gate::add_cluster(cluster)],
            },
        }),
    )
    .note("/metadata/annotations/injector.dev~1owner", "The user that the API server knows; the admission policies compare it.")
    .note("/metadata/annotations/injector.dev~1expires", "The end of the lease, renewed with the entry's. Ten minutes later anybody may clear it away. Istio does not push a changed annotation.")
    .note("/spec/configPatches/0/patch/value/circuit_breakers", "As in the gate: a fallback is a retry.")
    .note("/spec/configPatches/0/patch/value/cluster_type", "Attempt 1 goes to the relay, attempt 2 to the in-cluster version.")
}

fn entry(workload: &Workload, new: NewIntercept<'_>) -> Object {
    Object::new(
        format!(
            "The entry of the intercept `{}`, as `injector intercept` applies it (server-side, field manager `{}`): everything else of the WasmPlugin stays the installer's.\n\
             It is all that an intercept needs: it takes effect with this and ends with its removal.",
            new.name,
            names::field_manager(new.name)
        ),
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {"name": workload.object_name(), "namespace": workload.namespace},
            "spec": {"pluginConfig": {"intercepts": {new.name: new.entry}}},
        }),
    )
    .note(format!("/spec/pluginConfig/intercepts/{}/port", new.name), "The container port: the filter sees every inbound port of the workload.")
    .note(format!("/spec/pluginConfig/intercepts/{}/address", new.name), "The tunnel at the relay: a hash. Opening a tunnel needs the secret behind it, which stays on the developer machine.")
    .note(format!("/spec/pluginConfig/intercepts/{}/owner", new.name), "Who claims it; the admission policies hold it against the user who writes.")
    .note(format!("/spec/pluginConfig/intercepts/{}/headers", new.name), "Which requests: each value is a regex that must match entirely.")
    .note(format!("/spec/pluginConfig/intercepts/{}/expires", new.name), "The lease, in seconds since the epoch. The filter itself ends it.")
}

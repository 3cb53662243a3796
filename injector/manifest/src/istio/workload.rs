//! What prepares a workload: the inert filter, the gate, how its namespace talks to the relays, and the controller's rights there. None of it intercepts anything.

use intercept_core::TEXT_SCHEMA_VERSION;
use serde_json::{Value, json};

use super::facts::{Mesh, Plugin, Workload};
use super::install::controller;
use super::invalid::InvalidFacts;
use super::object::Object;
use super::preparation::Preparation;
use super::{gate, names};

/// Ours is the last of its phase: it sees the headers that other plugins set.
const PRIORITY: i32 = -1000;

/// Everything that prepares this workload: what its namespace shares, then what is the workload's own.
///
/// The text of intercepts is not among it: it is the controller's, and the installer applying an empty one would take all intercepts away.
pub fn workload_objects(
    mesh: &Mesh,
    workload: &Workload,
    plugin: &Plugin,
) -> Result<Vec<Object>, InvalidFacts> {
    workload.check()?;
    plugin.module.check()?;
    let mut objects = namespace_objects(mesh, &workload.namespace)?;
    objects.push(wasm_plugin(mesh, workload, plugin));
    objects.push(gate::object(mesh, workload));
    Ok(objects)
}

/// What all prepared workloads of a namespace share; to be removed with the last of them.
///
/// A DestinationRule of a user in this namespace, `*.svc.cluster.local` for instance, would win over one beside the relay: hence here, and for exactly the relays.
fn namespace_objects(mesh: &Mesh, namespace: &str) -> Result<Vec<Object>, InvalidFacts> {
    mesh.check_namespace(namespace)?;
    let rules = (0..mesh.relay_replicas).map(|replica| destination_rule(mesh, namespace, replica));
    let mut objects: Vec<Object> = rules.collect();
    objects.push(controller::workload_binding(mesh, namespace));
    Ok(objects)
}

fn destination_rule(mesh: &Mesh, namespace: &str, replica: u16) -> Object {
    Object::new(
        format!(
            "How the workloads of `{namespace}` talk to relay {replica}. It stands in their namespace, for this one host: there it wins over a wildcard rule of yours, \
             whose outlier detection would take the relay away from all developers because of one developer's errors."
        ),
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": names::metadata(&names::relay_replica(replica), namespace, "injector-workload"),
            "spec": {
                "host": mesh.relay_host(replica),
                "exportTo": ["."],
                "trafficPolicy": {
                    "connectionPool": {"tcp": {"connectTimeout": "1s"}, "http": {"idleTimeout": "60s"}},
                    "outlierDetection": {"consecutive5xxErrors": 0, "consecutiveGatewayErrors": 0},
                },
            },
        }),
    )
    .note("/spec/exportTo", "It is for this namespace only.")
    .note("/spec/trafficPolicy/connectionPool/tcp", "A relay whose node is gone costs a request this long before the in-cluster version answers it. Istio's default is 10 s.")
    .note("/spec/trafficPolicy/connectionPool/http", "Less than the relay keeps an unused connection: a POST that races with a close by the other side is lost.")
    .note("/spec/trafficPolicy/outlierDetection", "Off: the 500s of one developer's program say nothing about the relay.")
}

/// What is not limited is not written: the API server drops a `null`, and the two sides would differ for ever.
fn limits(plugin: &Plugin) -> Value {
    let mut limits = json!(plugin.limits);
    if let Some(limits) = limits.as_object_mut() {
        limits.retain(|_, value| !value.is_null());
    }
    limits
}

fn wasm_plugin(mesh: &Mesh, workload: &Workload, plugin: &Plugin) -> Object {
    let mut metadata = workload.metadata(&workload.object_name());
    let preparation = Preparation {
        mesh: mesh.clone(),
        workload: workload.clone(),
    };
    let preparation = serde_json::to_string(&preparation).unwrap_or_default();
    metadata["annotations"][names::PREPARATION] = json!(preparation);
    Object::new(
        format!(
            "The filter of {}. Without intercepts it lets every request pass, at once and unchanged.\n\
             Intercepts are one text, `spec.pluginConfig.intercepts`, which the controller writes: a change there reaches the proxies within milliseconds and drains no listener.\n\
             The text is not written here, so applying this file again (Argo CD, Flux, `injector install`) removes no intercept.",
            workload.label()
        ),
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": workload.selector},
                "url": plugin.module.url,
                "sha256": plugin.module.sha256,
                "failStrategy": "FAIL_OPEN",
                "priority": PRIORITY,
                "match": [{"mode": "SERVER"}],
                "pluginConfig": {"version": TEXT_SCHEMA_VERSION, "limits": limits(plugin)},
            },
        }),
    )
    .note("/metadata/annotations/injector.dev~1preparation", "What the operator said of the workload: the controller and `injector` read its ports and relays here.")
    .note("/spec/selector", "This workload's pods and no others.")
    .note("/spec/url", "Fetched by the sidecars' agents, in plain text and outside the mesh; the digest below is what is trusted.")
    .note("/spec/failStrategy", "A module that cannot be fetched is left out. With any other strategy the workload would answer 403 to everything.")
    .note("/spec/priority", "Last of its phase, so that it sees the headers that other plugins set. There is no `phase`: the filter then stands behind JWT and both authorization filters, so what you deny stays denied.")
    .note("/spec/match", "Requests that come in, not those that the workload sends.")
    .note("/spec/pluginConfig/limits", "What the operator allows. The controller accepts nothing else, and the filter checks every entry again.")
}

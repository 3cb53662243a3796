//! What one Intercept comes to: the cluster of its own, and its place in the text of the workload's intercepts. A pure rendering, for the controller and for `--dry-run` alike.

use intercept_core::Intercept as Entry;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::facts::Port;
use super::object::Object;
use super::preparation::ControlledPlugin;
use super::resource::Intercept;
use super::{gate, names};
use crate::cluster;

/// The Intercept, then what the controller writes for it beside the entries that are there: an EnvoyFilter, and the WasmPlugin with nothing but its text. `None`: the workload has no such port.
pub fn intercept_objects(
    plugin: &ControlledPlugin,
    intercept: &Intercept,
    entry: &Entry,
) -> Option<Vec<Object>> {
    let name = intercept.name();
    let relay = intercept.spec.tunnel.relay;
    let filter = envoy_filter(plugin, name, entry, relay)?;
    let mut entries = plugin.entries();
    entries.retain(|(known, _)| known != name);
    entries.push((name.to_owned(), entry.clone()));
    let text = text(entries.iter().map(|(name, entry)| (name.as_str(), entry)));
    let mut asked = json!(intercept);
    if let Some(asked) = asked.as_object_mut() {
        asked.retain(|_, value| !value.is_null());
    }
    let created = Object::new(
        "What `injector intercept` creates, and all that a developer writes. Deleting it ends the intercept.",
        asked,
    )
    .note("/spec/owner", "The user that the API server knows; an admission policy compares the two.")
    .note("/spec/match/headers", "Which requests: each value is a regex that must match entirely.")
    .note("/spec/tunnel/address", "The tunnel at the relay: a hash. Opening a tunnel needs the secret behind it, which stays on the developer machine.")
    .note("/spec/renewTime", "Its change renews the lease; only the controller's clock counts. Without it the lease is over.");
    let written = Object::new(
        "The text of the workload's intercepts, as the controller applies it (server-side): everything else of the WasmPlugin stays the installer's.\n\
         A change of it reaches the proxies within milliseconds and drains no listener.",
        plugin.patch(&text),
    )
    .note("/spec/pluginConfig/intercepts", "As one text: the API server tracks the owner of every field of a map, which takes seconds for a thousand entries.");
    Some(vec![created, filter, written])
}

/// The intercepts of a workload as the filter reads them, in this order.
pub fn text<'e>(entries: impl Iterator<Item = (&'e str, &'e Entry)>) -> String {
    struct Map<I>(std::cell::Cell<Option<I>>);
    impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)>> Serialize for Map<I> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.take().into_iter().flatten())
        }
    }
    serde_json::to_string(&Map(std::cell::Cell::new(Some(entries)))).unwrap_or_default()
}

/// The EnvoyFilter of an accepted Intercept. It goes with the WasmPlugin, and never with the Intercept: a request that breaks off at the developer's end needs its cluster to reach the app.
pub fn envoy_filter(
    plugin: &ControlledPlugin,
    name: &str,
    entry: &Entry,
    relay: u16,
) -> Option<Object> {
    let preparation = &plugin.preparation;
    let workload = &preparation.workload;
    let port: &Port = workload
        .ports
        .iter()
        .find(|port| port.number == entry.port)?;
    let object = names::of_intercept(name, (workload.kind, &workload.name), port.number, relay);
    let mut metadata = workload.metadata(&object);
    metadata["labels"] = names::labels("injector-intercept");
    metadata["labels"][names::INTERCEPT] = json!(name);
    metadata["annotations"][names::OWNER] = json!(entry.owner);
    if !plugin.uid.is_empty() {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "name": plugin.name,
            "uid": plugin.uid,
        }]);
    }
    let cluster = gate::aggregate(
        &preparation.mesh,
        &workload.namespace,
        &cluster::mesh_intercept_name(port.number, name, relay),
        port,
        relay,
    );
    let filter = Object::new(
        format!(
            "The cluster of the intercept `{name}`: its name is what access logs show. Written by the controller before the text below, and removed 30 s after the Intercept; no listener drains.\n\
             The object's name ends with a hash of workload, port and relay: the same intercept elsewhere gets another object, and requests under way keep this one.\n\
             Its whole shape is fixed: an admission policy takes no other from the controller."
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
    );
    Some(
        filter
            .note("/metadata/annotations/injector.dev~1owner", "Whose it is.")
            .note(
                "/spec/configPatches/0/patch/value/circuit_breakers",
                "As in the gate: a fallback is a retry.",
            )
            .note(
                "/spec/configPatches/0/patch/value/cluster_type",
                "Attempt 1 goes to the relay, attempt 2 to the in-cluster version.",
            ),
    )
}

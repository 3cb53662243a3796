//! The cluster part: what is installed once, before any workload is prepared.

pub mod controller;

mod facts;
mod mesh_rules;
mod module;
mod outbound;
mod pods;
mod policy;
mod relay;
mod roles;

use serde_json::json;

use super::invalid::InvalidFacts;
use super::names;
use super::object::Object;
use super::resource;

pub use self::facts::ClusterInstall;
pub use self::outbound::{Outbound, outbound_objects};
pub use super::ports::{
    CONTROL_PORT, H2_PORT, HTTP_PORT, MODULE_PORT, OUTBOUND_PORT, PRESENCE_PORT,
};

/// Everything that is installed once, in the order in which it is applied.
///
/// Applying it takes an administrator of the cluster: it creates a resource definition, roles and admission policies. The role `injector-operator` is for preparing workloads afterwards.
pub fn cluster_objects(install: &ClusterInstall) -> Result<Vec<Object>, InvalidFacts> {
    install.mesh.check()?;
    if let Some(revision) = &install.revision {
        names::check_name("revision", revision)?;
    }
    let mut objects = vec![namespace(install), resource::definition()];
    objects.extend(policy::objects(&install.mesh));
    objects.extend(mesh_rules::objects(install));
    objects.extend(relay::objects(install));
    objects.extend(module::objects(install));
    // After the policies: bindings may be there from before, and no right may be used without them.
    objects.extend(roles::objects(install));
    objects.extend(controller::objects(install));
    Ok(objects)
}

fn namespace(install: &ClusterInstall) -> Object {
    let mut labels = names::labels("injector");
    match &install.revision {
        Some(revision) => labels["istio.io/rev"] = json!(revision),
        None => labels["istio-injection"] = json!("enabled"),
    }
    let label = match install.revision {
        Some(_) => "/metadata/labels/istio.io~1rev",
        None => "/metadata/labels/istio-injection",
    };
    Object::new(
        "Where relays, module server and controller live: a namespace of their own, since the right to forward ports to the relays' pods is the right to open tunnels.",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": install.mesh.namespace, "labels": labels}}),
    )
    .note(label, "The relays have a sidecar: mTLS on both ends of the hop, and the caller's identity, are Istio's business. Module server and controller refuse theirs.")
}

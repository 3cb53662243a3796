//! The cluster part: what is installed once, before any workload is prepared.

pub mod controller;
pub mod policy;

mod facts;
mod mesh_rules;
mod module;
mod pods;
mod relay;
mod roles;

use serde_json::json;

use super::invalid::InvalidFacts;
use super::names;
use super::object::Object;

pub use self::facts::ClusterInstall;
pub use super::ports::{CONTROL_PORT, H2_PORT, HTTP_PORT, MODULE_PORT};

/// Everything that is installed once, in the order in which it is applied.
///
/// Applying it takes an administrator of the cluster: it creates roles and admission policies. The role `injector-operator` is for preparing workloads afterwards.
pub fn cluster_objects(install: &ClusterInstall) -> Result<Vec<Object>, InvalidFacts> {
    install.mesh.check()?;
    if let Some(revision) = &install.revision {
        names::check_name("revision", revision)?;
    }
    let mut objects = vec![namespace(install)];
    objects.extend(policy::objects(&install.mesh, install.has_clock));
    objects.extend(mesh_rules::objects(install));
    objects.extend(relay::objects(install));
    objects.extend(module::objects(install));
    // Last: RoleBindings may be there from before, and nobody may have these rights without the policies.
    objects.extend(roles::objects(install));
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
        "Where the relays and the module server live: a namespace of their own, since whoever may forward ports to the relays' pods may open tunnels.",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": install.mesh.namespace, "labels": labels}}),
    )
    .note(label, "The relays have a sidecar: mTLS on both ends of the hop, and the caller's identity, are Istio's business. The module server refuses its own.")
}

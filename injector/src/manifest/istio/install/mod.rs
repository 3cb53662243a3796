//! The cluster part: what is installed once, before any workload is prepared.

pub mod controller;
pub mod policy;

mod mesh_rules;
mod module;
mod pods;
mod relay;
mod roles;

use serde_json::json;

use super::facts::Mesh;
use super::invalid::InvalidFacts;
use super::names;
use super::object::Object;

/// Where a relay takes matched requests in HTTP/1.1, WebSockets included.
pub const HTTP_PORT: u16 = 8080;

/// Where a relay takes matched requests in HTTP/2, which is gRPC too.
pub const H2_PORT: u16 = 8081;

/// Where a relay takes tunnels, on its own loopback: reached by port-forward and by nothing else.
pub const CONTROL_PORT: u16 = 7070;

/// Where the filter is fetched.
pub const MODULE_PORT: u16 = 8000;

/// What the cluster part is rendered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInstall {
    /// Where it goes, and how many relays there are.
    pub mesh: Mesh,
    /// The revision of the mesh that injects the relay's sidecar (`istio.io/rev`); `None`: the mesh's default one.
    pub revision: Option<String>,
    /// The image with `/injector` and `/filter.wasm`.
    pub image: String,
    /// The Secret, in the relay's namespace, with which the image is pulled.
    pub image_pull_secret: Option<String>,
    /// This build's version; it stands on the relay, so that a command can tell whether it speaks the same language.
    pub version: String,
    /// Do API servers keep a Lease that tells the time (feature gate `APIServerIdentity`)? Without one, only operators clear away what others left.
    pub has_clock: bool,
}

impl ClusterInstall {
    /// Where the sidecars' agents fetch the filter that this installation serves.
    pub fn module_url(&self) -> String {
        let Mesh {
            namespace,
            cluster_domain,
            ..
        } = &self.mesh;
        format!(
            "http://{}.{namespace}.svc.{cluster_domain}:{MODULE_PORT}/filter.wasm",
            names::MODULE
        )
    }
}

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

//! What has to be known before the cluster part can be rendered.

use crate::istio::facts::Mesh;
use crate::istio::names;
use crate::istio::ports::MODULE_PORT;

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

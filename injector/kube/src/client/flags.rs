//! Which cluster, as plain data.

use std::path::PathBuf;

/// Which cluster, as the command line says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeFlags {
    /// `--context`; `None`: the current one.
    pub context: Option<String>,
    /// `--kubeconfig`; `None`: `KUBECONFIG`, then `~/.kube/config`, then the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// `--namespace`; `None`: the context's.
    pub namespace: Option<String>,
}

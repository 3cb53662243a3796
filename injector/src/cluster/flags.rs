//! Which cluster, as plain data.

use std::path::PathBuf;

use crate::shell::quote;

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

impl KubeFlags {
    /// As they were written, with a blank before each word.
    pub fn words(&self) -> String {
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.to_string_lossy());
        let words = [
            ("--context", self.context.as_deref()),
            ("--kubeconfig", kubeconfig.as_deref()),
            ("-n", self.namespace.as_deref()),
        ];
        let given = words
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value?)));
        given
            .map(|(flag, value)| format!(" {flag} {}", quote(value)))
            .collect()
    }
}

//! What to do about what Kubernetes and its workloads answer.

use intercept_kube::ClusterError;
use intercept_kube::pods::{Fault, PodError};
use intercept_kube::prepare::Unpreparable;
use intercept_kube::resolve::ResolveError;
use kube::config::KubeconfigError;

use super::Hint;
use crate::shell::quote;

impl Hint for ClusterError {
    fn hint(&self) -> String {
        match self {
            Self::Kubeconfig(KubeconfigError::CurrentContextNotSet) => {
                "kubectl config get-contexts, then --context NAME".to_owned()
            }
            Self::Kubeconfig(_) => {
                "--kubeconfig FILE, or the variable KUBECONFIG; without a cluster: injector sandbox"
                    .to_owned()
            }
            Self::NoSuchContext { .. } => "kubectl config get-contexts".to_owned(),
            Self::NoSuchKind { api_version, .. } if api_version.contains("istio.io") => {
                "is Istio installed in this cluster? kubectl get crd | grep istio.io".to_owned()
            }
            Self::NoSuchKind { .. } => "kubectl api-versions".to_owned(),
            Self::Refused { status, .. } => match status.code {
                401 => "kubectl auth whoami".to_owned(),
                // The API server forbids it to all users.
                403 if status.message.contains("it is being terminated") => {
                    "wait until the namespace is gone, then again: kubectl get namespaces"
                        .to_owned()
                }
                403 => "kubectl auth can-i --list tells what you may; an administrator binds the role: kubectl create rolebinding … --clusterrole=injector-developer --user=YOU, in that namespace and (as --role) beside the relays".to_owned(),
                _ => "injector doctor".to_owned(),
            },
            Self::Unreachable { .. } => "kubectl cluster-info".to_owned(),
            Self::UnknownKind(_) => "injector --version".to_owned(),
        }
    }

    fn may_pass(&self) -> bool {
        self.is_passing()
    }

    fn is_denied(&self) -> bool {
        self.is_forbidden()
    }
}

impl Hint for ResolveError {
    fn hint(&self) -> String {
        match self {
            Self::Prefix { name, .. } => format!("say deploy/{name}, for instance"),
            Self::LeadsNowhere { service, namespace } => format!(
                "kubectl -n {} describe service {}",
                quote(namespace),
                quote(service)
            ),
            Self::Ambiguous { workloads, .. } => {
                let first = workloads.first().map_or("deploy/NAME", String::as_str);
                format!("say which one: {first}")
            }
            Self::NotFound { namespace, .. } => format!(
                "kubectl -n {} get services,deployments,statefulsets,daemonsets",
                quote(namespace)
            ),
        }
    }

    fn is_usage(&self) -> bool {
        matches!(self, Self::Prefix { .. } | Self::Ambiguous { .. })
    }
}

impl Hint for PodError {
    fn hint(&self) -> String {
        match &self.fault {
            Fault::NoSidecar => format!(
                "kubectl label namespace {0} istio-injection=enabled, then restart the workload: kubectl -n {0} rollout restart …",
                quote(&self.namespace)
            ),
            Fault::OldIstio(..) => {
                "restart the workload after the mesh's upgrade: kubectl rollout restart …"
                    .to_owned()
            }
            Fault::Probed(_) => "add a header condition, or remove the annotation sidecar.istio.io/rewriteAppHTTPProbers: \"false\"".to_owned(),
            Fault::HostNetwork | Fault::PassesBy(..) => format!(
                "kubectl -n {} get pod {} -o yaml",
                quote(&self.namespace),
                quote(&self.pod)
            ),
        }
    }
}

impl Hint for Unpreparable {
    fn hint(&self) -> String {
        match self {
            Self::HostNetwork(_) => "intercept another workload on the way to it".to_owned(),
            Self::Expressions(_) => "kubectl explain deployment.spec.selector".to_owned(),
            Self::NoSidecar { workload, .. } => format!(
                "kubectl label namespace … istio-injection=enabled, then: kubectl rollout restart {}",
                workload.to_lowercase()
            ),
            Self::NotInjected(_) => "kubectl label namespace … istio-injection=enabled".to_owned(),
            Self::NoSuchPort { .. } => "kubectl get services -o wide".to_owned(),
            Self::Port { .. } | Self::NoPorts { .. } => {
                "a Service's port speaks HTTP when its appProtocol or the beginning of its name says so: appProtocol: http".to_owned()
            }
            Self::Unreadable { .. } => "injector --version".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CliError;

    #[test]
    fn only_what_broke_off_may_pass() {
        for may_pass in [true, false] {
            let server = "https://127.0.0.1:6443".to_owned();
            let reason = "deadline has elapsed".to_owned();
            let error = ClusterError::Unreachable {
                server,
                reason,
                may_pass,
            };
            assert_eq!(CliError::from(error).may_pass(), may_pass);
        }
    }
}

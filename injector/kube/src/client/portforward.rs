//! Connections into pods, through the API server: RBAC on `pods/portforward` decides who may open one.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cluster, ClusterError, TIMEOUT, kind};

impl Cluster {
    /// A connection to a port of a pod, on the pod's own loopback. Where nothing listens there, the connection stands and ends at once.
    pub async fn connect_pod(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, ClusterError> {
        let ports = [port];
        let what = || format!("port-forward to {}", kind::POD.label(Some(namespace), pod));
        let open = async || {
            let client = self.credentials.client().await;
            let pods: Api<Pod> = Api::namespaced(client, namespace);
            tokio::time::timeout(TIMEOUT, pods.portforward(pod, &ports)).await
        };
        let mut opened = open().await;
        if let Ok(Err(kube::Error::Api(status))) = &opened
            && status.code == 401
            && self.credentials.refused().await
        {
            opened = open().await;
        }
        let mut forwarder = match opened {
            Ok(Ok(forwarder)) => forwarder,
            Ok(Err(kube::Error::Api(status))) => {
                return Err(ClusterError::Refused {
                    what: what(),
                    status,
                });
            }
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(late) => return Err(self.unreachable(&late)),
        };
        // The forwarder's own task lives as long as the stream.
        forwarder
            .take_stream(port)
            .ok_or_else(|| ClusterError::Unreachable {
                server: self.server.clone(),
                reason: format!("{}: no stream for port {port}", what()),
                may_pass: true,
            })
    }
}

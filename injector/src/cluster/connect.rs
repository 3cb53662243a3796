//! From the flags and the kubeconfig to a client, as kubectl does it.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{Cluster, ClusterError, error::with_causes};

/// An API server that does not even take the connection is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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

impl Cluster {
    /// Reads the kubeconfig. Asks the API server nothing yet.
    pub async fn connect(flags: &KubeFlags) -> Result<Self, ClusterError> {
        let (mut config, context_name) = config(flags).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if let Some(namespace) = &flags.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_owned();
        let default_namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| ClusterError::Unreachable {
            server: server.clone(),
            reason: with_causes(&error),
            may_pass: false,
        })?;
        Ok(Self {
            client,
            default_namespace,
            context_name,
            server,
            patience: None,
        })
    }
}

async fn config(flags: &KubeFlags) -> Result<(Config, String), ClusterError> {
    let kubeconfig = match &flags.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match kubeconfig {
        Ok(kubeconfig) => kubeconfig,
        Err(error) => return in_cluster(flags).ok_or(error.into()),
    };
    let wanted = flags
        .context
        .as_ref()
        .or(kubeconfig.current_context.as_ref());
    let name = wanted.cloned().unwrap_or_default();
    if wanted.is_some()
        && !kubeconfig
            .contexts
            .iter()
            .any(|context| context.name == name)
    {
        let known = kubeconfig.contexts.into_iter().map(|context| context.name);
        return Err(ClusterError::NoSuchContext {
            wanted: name,
            known: known.collect(),
        });
    }
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok((config, name))
}

/// In a pod, for instance of a CI system; only where no flag asks for something else.
fn in_cluster(flags: &KubeFlags) -> Option<(Config, String)> {
    if flags.context.is_some() || flags.kubeconfig.is_some() {
        return None;
    }
    let config = Config::incluster().ok()?;
    Some((config, "in-cluster".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn kubeconfig(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    const TWO: &str = r#"
apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: c, cluster: {server: "http://127.0.0.1:1"}}
users:
- {name: u, user: {}}
contexts:
- {name: one, context: {cluster: c, user: u}}
- {name: two, context: {cluster: c, user: u, namespace: shop}}
"#;

    async fn connect(flags: KubeFlags) -> Result<Cluster, ClusterError> {
        let file = kubeconfig(TWO);
        let kubeconfig = Some(file.path().to_owned());
        Cluster::connect(&KubeFlags {
            kubeconfig,
            ..flags
        })
        .await
    }

    #[tokio::test]
    async fn the_namespace_is_the_flag_then_the_context_then_default() {
        let context = Some("two".to_owned());
        let namespace = Some("mine".to_owned());
        let plain = connect(KubeFlags::default()).await.unwrap();
        assert_eq!((plain.namespace(), plain.context()), ("default", "one"));
        let two = connect(KubeFlags {
            context: context.clone(),
            ..KubeFlags::default()
        })
        .await
        .unwrap();
        assert_eq!((two.namespace(), two.context()), ("shop", "two"));
        let flags = KubeFlags {
            context,
            namespace,
            ..KubeFlags::default()
        };
        assert_eq!(connect(flags).await.unwrap().namespace(), "mine");
    }

    #[tokio::test]
    async fn a_context_that_is_not_there_is_named_with_those_that_are() {
        let flags = KubeFlags {
            context: Some("three".to_owned()),
            ..KubeFlags::default()
        };
        let error = connect(flags).await.unwrap_err().to_string();
        assert_eq!(error, "kubeconfig: no context `three`, it has one, two");
    }

    #[tokio::test]
    async fn an_api_server_that_is_away_is_named_with_the_reason() {
        let cluster = connect(KubeFlags::default()).await.unwrap();
        let error = cluster.whoami().await.unwrap_err();
        assert!(error.is_passing());
        let text = error.to_string();
        assert!(
            text.starts_with("http://127.0.0.1:1: ") && text.contains("refused"),
            "{text}"
        );
    }
}

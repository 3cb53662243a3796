//! From the flags and the kubeconfig to a client, as kubectl does it.

use std::time::Duration;

use intercept_manifest::digest;
use intercept_tunnel::with_causes;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::{Cluster, ClusterError, KubeFlags, credentials::Credentials};

/// An API server that does not even take the connection is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Reads the kubeconfig. Asks the API server nothing yet.
    pub async fn connect(flags: &KubeFlags) -> Result<Self, ClusterError> {
        let (mut config, context_name) = config(flags).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let chosen = KubeFlags {
            namespace: Some(config.default_namespace.clone()),
            ..flags.clone()
        };
        if let Some(namespace) = &flags.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_owned();
        let fingerprint = fingerprint(&server, config.root_cert.as_deref().unwrap_or_default());
        let default_namespace = config.default_namespace.clone();
        let credentials = Credentials::new(config).map_err(|error| ClusterError::Unreachable {
            server: server.clone(),
            reason: with_causes(&error),
            may_pass: false,
        })?;
        Ok(Self {
            credentials,
            default_namespace,
            context_name,
            server,
            fingerprint,
            chosen,
            patience: None,
        })
    }
}

/// Of the URL and of the authorities that may vouch for it: all that are reached through a tunnel may have one URL, and all behind a proxy one authority.
fn fingerprint(server: &str, authorities: &[Vec<u8>]) -> String {
    let authorities = authorities.iter().map(Vec::as_slice);
    let all: Vec<&[u8]> = std::iter::once(server.as_bytes())
        .chain(authorities)
        .collect();
    digest::fingerprint(all.join(&0))
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

    const AUTHORITIES: [&str; 2] = [
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJiakNDQVJXZ0F3SUJBZ0lVUk1nUjVPVkVXSUtOY1V4NndIRjhVclV4SmlVd0NnWUlLb1pJemowRUF3SXcKRERFS01BZ0dBMVVFQXd3QmVEQWdGdzB5TmpFeE1qVXhORFUwTUROYUdBOHlNVEkyTVRFd01URTBOVFF3TTFvdwpEREVLTUFnR0ExVUVBd3dCZURCWk1CTUdCeXFHU000OUFnRUdDQ3FHU000OUF3RUhBMElBQktzZlJOb0Y4Q2M5CmZtRDRVb2FKQitldDdiTGtkUXEwR2gveVVtTmw1eXhIZ0FxVmxTZ2R1S0thdDMwSVVNODVBeGY5SUxycHU3QkcKZUV1WmNQMzQvRWlqVXpCUk1CMEdBMVVkRGdRV0JCUWhmYzU4RGZSN0NPMlpIZVVHTFBvL05qOVl2ekFmQmdOVgpIU01FR0RBV2dCUWhmYzU4RGZSN0NPMlpIZVVHTFBvL05qOVl2ekFQQmdOVkhSTUJBZjhFQlRBREFRSC9NQW9HCkNDcUdTTTQ5QkFNQ0EwY0FNRVFDSUNBK0RXTG45N1BpaFovKy9jMG02a3Fmb2FzdGkzSVFUOHFwUlEyaytFUUUKQWlBVGpXUHRxQlBDbWYveHZHK2VaZitsSzlJQUlpZDRTTjNoMDZ5UTZCdG5RQT09Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K",
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJiekNDQVJXZ0F3SUJBZ0lVR2FpNFIydUdNb2lQOVdSMHpsT28wa1JmNmVvd0NnWUlLb1pJemowRUF3SXcKRERFS01BZ0dBMVVFQXd3QmVEQWdGdzB5TmpFeE1qVXhORFUwTUROYUdBOHlNVEkyTVRFd01URTBOVFF3TTFvdwpEREVLTUFnR0ExVUVBd3dCZURCWk1CTUdCeXFHU000OUFnRUdDQ3FHU000OUF3RUhBMElBQlAzdTZXTmZtTzBNCnAwVGowZXIrZTltMzNzMGFxcG15dXM2bVJTWktvV0hwUXV3N2NkRFI1c2JwRVJSSUVYbEYxcnZOK0ZnclpCTmcKRFhGMXVKbTNxSGVqVXpCUk1CMEdBMVVkRGdRV0JCUzBhVDRWSUlzOURnZ3o1ZWlEbzEzUWphajlLREFmQmdOVgpIU01FR0RBV2dCUzBhVDRWSUlzOURnZ3o1ZWlEbzEzUWphajlLREFQQmdOVkhSTUJBZjhFQlRBREFRSC9NQW9HCkNDcUdTTTQ5QkFNQ0EwZ0FNRVVDSUhJTmdlajZvOHljc2FxaHBGc1ptR2pWWEs5RmhnT1YvYTMxSHg2VlhnRXIKQWlFQXAzek9QY0I5YzZ5SmZHM1hsMG9zaW04MGR1UXhPSEJ6QzJKVC95ZEtoemM9Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K",
    ];

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
    async fn namespace_of_flag_then_context_then_default() {
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
    async fn flags_leave_out_the_contexts_own_namespace() {
        let file = kubeconfig(TWO);
        let chosen = KubeFlags {
            context: Some("two".to_owned()),
            kubeconfig: Some(file.path().to_owned()),
            namespace: Some("mine".to_owned()),
        };
        let cluster = Cluster::connect(&chosen).await.unwrap();
        let own = KubeFlags {
            namespace: None,
            ..chosen.clone()
        };
        for (namespace, expected) in [(Some("mine"), &chosen), (Some("shop"), &own), (None, &own)] {
            assert_eq!(&cluster.flags(namespace), expected);
        }
    }

    #[tokio::test]
    async fn fingerprint_tells_api_servers_apart() {
        let with = async |text: &str| {
            let file = kubeconfig(text);
            let flags = KubeFlags {
                kubeconfig: Some(file.path().to_owned()),
                ..KubeFlags::default()
            };
            let cluster = Cluster::connect(&flags).await.unwrap();
            assert_eq!(cluster.context(), "one");
            cluster.fingerprint().to_owned()
        };
        let secure = |data: &str| {
            let authority = format!("https://127.0.0.1:1\", certificate-authority-data: {data}");
            TWO.replace("http://127.0.0.1:1\"", &authority)
        };
        // Two that signed themselves: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x
        let all = [
            TWO.to_owned(),
            TWO.replace("127.0.0.1:1", "127.0.0.1:2"),
            secure(AUTHORITIES[0]),
            secure(AUTHORITIES[1]),
        ];
        let mut fingerprints = std::collections::BTreeSet::new();
        for text in &all {
            assert_eq!(with(text).await, with(text).await);
            fingerprints.insert(with(text).await);
        }
        assert_eq!(fingerprints.len(), all.len(), "{fingerprints:?}");
    }

    #[tokio::test]
    async fn unknown_context_lists_known_ones() {
        let flags = KubeFlags {
            context: Some("three".to_owned()),
            ..KubeFlags::default()
        };
        let error = connect(flags).await.unwrap_err().to_string();
        assert_eq!(error, "kubeconfig: no context `three`, it has one, two");
    }

    #[tokio::test]
    async fn unreachable_api_server_is_named() {
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

//! The cluster part as it is in the cluster: what an operator said when it was installed, and need not say again.

use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, kind};
use crate::hint::{OrHint, Result};
use crate::manifest::istio::names;

/// The root namespace of a mesh that does not say otherwise.
const ROOT_NAMESPACE: &str = "istio-system";

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// How many relays there are meant to be.
    pub replicas: u16,
    /// The relays' image.
    pub image: String,
    /// With what it is pulled.
    pub image_pull_secret: Option<String>,
    /// The version of the build that installed it.
    pub version: String,
    /// The mesh's revision that injects the relays' sidecars.
    pub revision: Option<String>,
}

/// Reads it; `None` where there is no relay.
pub async fn read(cluster: &Cluster, namespace: &str) -> Result<Option<Installed>, ClusterError> {
    let relay = cluster
        .get(&kind::STATEFUL_SET, Some(namespace), names::RELAY)
        .await?;
    let Some(relay) = relay else {
        return Ok(None);
    };
    let around = match cluster.get(&kind::NAMESPACE, None, namespace).await {
        Ok(around) => around.unwrap_or_default(),
        // Whoever prepares workloads may not be allowed to look; then nothing is known of a revision, and nothing is written there either.
        Err(error) if error.is_forbidden() => Value::Null,
        Err(error) => return Err(error),
    };
    Ok(Some(of(&relay, &around)))
}

fn of(relay: &Value, namespace: &Value) -> Installed {
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let pod = "/spec/template/spec";
    let replicas = relay.pointer("/spec/replicas").and_then(Value::as_u64);
    Installed {
        replicas: replicas
            .and_then(|replicas| u16::try_from(replicas).ok())
            .unwrap_or(1),
        image: text(relay, &format!("{pod}/containers/0/image")).unwrap_or_default(),
        image_pull_secret: text(relay, &format!("{pod}/imagePullSecrets/0/name")),
        version: text(relay, "/metadata/labels/app.kubernetes.io~1version").unwrap_or_default(),
        revision: text(namespace, "/metadata/labels/istio.io~1rev"),
    }
}

/// The mesh's root namespace, as its configuration says. Whoever may not read that gets the usual one.
pub async fn root_namespace(cluster: &Cluster, revision: Option<&str>) -> Result<String> {
    let name = revision.map_or("istio".to_owned(), |revision| format!("istio-{revision}"));
    let config = match cluster
        .get(&kind::CONFIG_MAP, Some(ROOT_NAMESPACE), &name)
        .await
    {
        Ok(config) => config.unwrap_or_default(),
        Err(error) if error.is_forbidden() => Value::Null,
        Err(error) => return Err(error.into()),
    };
    let Some(mesh) = config.pointer("/data/mesh").and_then(Value::as_str) else {
        return Ok(ROOT_NAMESPACE.to_owned());
    };
    let mesh: Value = serde_saphyr::from_str(mesh).or_hint(
        format!("ConfigMap {ROOT_NAMESPACE}/{name}: mesh"),
        "say it yourself: --root-namespace NAME",
    )?;
    let root = mesh.get("rootNamespace").and_then(Value::as_str);
    Ok(root
        .filter(|root| !root.is_empty())
        .unwrap_or(ROOT_NAMESPACE)
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::istio::{example, install};

    #[test]
    fn what_was_installed_is_read_back() {
        let mut installed = example::install();
        installed.image_pull_secret = Some("pull".to_owned());
        installed.revision = Some("canary".to_owned());
        let objects = install::cluster_objects(&installed).unwrap();
        let find = |kind: &str| {
            objects
                .iter()
                .find(|object| object.kind() == kind)
                .unwrap()
                .value()
        };
        let expected = Installed {
            replicas: installed.mesh.relay_replicas,
            image: installed.image,
            image_pull_secret: installed.image_pull_secret,
            version: installed.version,
            revision: installed.revision,
        };
        assert_eq!(of(find("StatefulSet"), find("Namespace")), expected);
    }
}

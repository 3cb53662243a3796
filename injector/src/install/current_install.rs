//! The cluster part as it is in the cluster: what an operator said when it was installed, and need not say again.

use intercept_kube::{Cluster, ClusterError, kind};
use intercept_manifest::istio::names;
use serde_json::Value;

use crate::error::{OrHint, Result};

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
    /// The end of every Service's name; `None`: a version installed it that did not say.
    pub cluster_domain: Option<String>,
    /// Do the relays say whether a tunnel is up to pods that ask?
    pub has_presence: bool,
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
        // A user who prepares workloads may not be allowed to look; then nothing is known of a revision, and nothing is written there either.
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
        cluster_domain: text(relay, "/metadata/annotations/injector.dev~1cluster-domain"),
        has_presence: relay
            .pointer(&format!("{pod}/containers/0/args"))
            .and_then(Value::as_array)
            .is_some_and(|arguments| arguments.iter().any(|word| word == "--presence")),
    }
}

/// The mesh's configuration; `Null` where there is none, or the caller may not read it.
pub async fn mesh_config(cluster: &Cluster, revision: Option<&str>) -> Result<Value> {
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
        return Ok(Value::Null);
    };
    serde_saphyr::from_str(mesh).or_hint(
        format!("ConfigMap {ROOT_NAMESPACE}/{name}: mesh"),
        "say it yourself: --root-namespace NAME",
    )
}

/// The mesh's root namespace, as its configuration says; the usual one where that is not known.
pub fn root_of(mesh: &Value) -> String {
    let root = mesh.get("rootNamespace").and_then(Value::as_str);
    root.filter(|root| !root.is_empty())
        .unwrap_or(ROOT_NAMESPACE)
        .to_owned()
}

/// The end of every Service's name, as istiod was told (`--domain`); `None` where it does not say, or the caller may not look.
pub async fn cluster_domain(cluster: &Cluster, root: &str) -> Result<Option<String>, ClusterError> {
    let istiod = cluster
        .list(&kind::DEPLOYMENT, Some(root), Some("app=istiod"))
        .await;
    match istiod {
        Ok(deployments) => Ok(deployments.iter().find_map(domain_of)),
        Err(error) if error.is_forbidden() => Ok(None),
        Err(error) => Err(error),
    }
}

fn domain_of(istiod: &Value) -> Option<String> {
    let containers = istiod
        .pointer("/spec/template/spec/containers")?
        .as_array()?;
    let domain = containers.iter().find_map(|container| {
        let mut arguments = container["args"].as_array()?.iter();
        arguments.find(|argument| *argument == "--domain")?;
        arguments.next()?.as_str()
    })?;
    Some(domain.to_owned())
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::{Object, example, install};
    use serde_json::json;

    use super::*;

    #[test]
    fn istiod_tells_how_names_of_services_end() {
        let args = json!([
            "discovery",
            "--log_output_level=default:info",
            "--domain",
            "corp.example"
        ]);
        let containers = json!([{"name": "discovery", "args": args}]);
        let istiod = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        assert_eq!(domain_of(&istiod).as_deref(), Some("corp.example"));
        assert_eq!(domain_of(&json!({})), None);
    }

    #[test]
    fn what_was_installed_is_read_back() {
        let mut installed = example::install();
        installed.image_pull_secret = Some("pull".to_owned());
        installed.revision = Some("canary".to_owned());
        installed.mesh.cluster_domain = "example.org".to_owned();
        let objects = install::cluster_objects(&installed).unwrap();
        let find = |kind: &str| Object::of_kind(&objects, kind).unwrap().value().clone();
        let expected = Installed {
            replicas: installed.mesh.relay_replicas,
            image: installed.image,
            image_pull_secret: installed.image_pull_secret,
            version: installed.version,
            revision: installed.revision,
            cluster_domain: Some(installed.mesh.cluster_domain),
            has_presence: true,
        };
        assert_eq!(of(&find("StatefulSet"), &find("Namespace")), expected);
    }
}

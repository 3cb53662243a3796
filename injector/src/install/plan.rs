//! What an operator's flags come to: the facts behind the objects that are applied, rendered and printed.

use super::current_install::{self, Installed};
use super::workloads::{Chosen, Listed, Wanted};
use super::{intercepts, module};
use crate::error::{CliError, Result};
use crate::shell::{context_flags, quote};
use intercept_core::Limits;
use intercept_kube::Cluster;
use intercept_manifest::istio::install::{ClusterInstall, cluster_objects};
use intercept_manifest::istio::{InvalidFacts, Mesh, Module, Object, Plugin, workload_objects};

/// How many relays there are by default: one may go away without taking every tunnel with it.
const RELAYS: u16 = 2;

/// The end of every Service's name where nothing says otherwise.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// What an operator said about the cluster part; `None`: as it is installed, else as it usually is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Where the cluster part is.
    pub namespace: String,
    /// The end of every Service's name.
    pub cluster_domain: Option<String>,
    /// The mesh's root namespace.
    pub root_namespace: Option<String>,
    /// How many relays.
    pub replicas: Option<u16>,
    /// The image.
    pub image: Option<String>,
    /// With what it is pulled.
    pub image_pull_secret: Option<String>,
    /// The mesh's revision.
    pub revision: Option<String>,
}

impl Said {
    /// What the cluster part is rendered from. An image must come from somewhere.
    pub fn install(
        &self,
        installed: Option<&Installed>,
        root_namespace: String,
        cluster_domain: Option<String>,
    ) -> Result<ClusterInstall> {
        let image = self
            .image
            .clone()
            .or_else(|| installed.map(|installed| installed.image.clone()));
        let image = image.filter(|image| !image.is_empty()).ok_or_else(|| {
            CliError::usage(
                "--relay-image: expected the image of relay and module server, nothing is installed yet",
                "wasm-build image --relay, push it to your registry, then: injector install --relay-image registry.example.com/injector:VERSION",
            )
        })?;
        // An image that stays is of the version that it was.
        let version = installed
            .filter(|installed| installed.image == image)
            .map(|installed| installed.version.clone());
        Ok(ClusterInstall {
            mesh: Mesh {
                namespace: self.namespace.clone(),
                root_namespace,
                cluster_domain: self
                    .cluster_domain
                    .clone()
                    .or_else(|| installed?.cluster_domain.clone())
                    .or(cluster_domain)
                    .unwrap_or_else(|| CLUSTER_DOMAIN.to_owned()),
                relay_replicas: self
                    .replicas
                    .or(installed.map(|installed| installed.replicas))
                    .unwrap_or(RELAYS),
            },
            revision: self
                .revision
                .clone()
                .or_else(|| installed?.revision.clone()),
            image,
            image_pull_secret: self
                .image_pull_secret
                .clone()
                .or_else(|| installed?.image_pull_secret.clone()),
            version: version
                .filter(|version| !version.is_empty())
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        })
    }
}

/// The cluster part of these flags, as it would be in this cluster.
pub async fn install(
    cluster: &Cluster,
    said: &Said,
) -> Result<(ClusterInstall, Option<Installed>)> {
    let installed = current_install::read(cluster, &said.namespace).await?;
    let revision = said.revision.as_deref().or(installed
        .as_ref()
        .and_then(|installed| installed.revision.as_deref()));
    let root = match &said.root_namespace {
        Some(root) => root.clone(),
        None => current_install::root_of(&current_install::mesh_config(cluster, revision).await?),
    };
    let known = installed
        .as_ref()
        .is_some_and(|installed| installed.cluster_domain.is_some());
    let domain = match said.cluster_domain.is_some() || known {
        true => None,
        false => current_install::cluster_domain(cluster, &root).await?,
    };
    let install = said.install(installed.as_ref(), root, domain)?;
    Ok((install, installed))
}

/// The objects of the cluster part.
pub fn cluster_part(install: &ClusterInstall) -> Result<Vec<Object>> {
    cluster_objects(install).map_err(invalid)
}

/// Which filter a workload is prepared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Our own module server's.
    Ours {
        /// Its digest; `None`: of what is handed out there now.
        sha256: Option<String>,
    },
    /// Another server's or a registry's.
    Elsewhere(Module),
}

impl Filter {
    /// Asks the module server where nothing else is said.
    pub async fn module(&self, cluster: &Cluster, install: &ClusterInstall) -> Result<Module> {
        let sha256 = match self {
            Self::Elsewhere(module) => return Ok(module.clone()),
            Self::Ours {
                sha256: Some(sha256),
            } => sha256.clone(),
            Self::Ours { sha256: None } => {
                module::served_sha256(cluster, &install.mesh.namespace).await?
            }
        };
        Ok(Module {
            url: install.module_url(),
            sha256,
        })
    }
}

/// Workloads with the objects that prepare them.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// In the order in which they are applied; what workloads of a namespace share is there once.
    pub objects: Vec<Object>,
    /// `Deployment/orders: ports 8080, 9090`.
    pub workloads: Vec<String>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// The workloads of a namespace that are meant. Refused is what would take a port away from a live intercept.
pub async fn workloads(
    cluster: &Cluster,
    namespace: &str,
    wanted: Wanted<'_>,
    ports: &[String],
) -> Result<Chosen> {
    let labels = match wanted {
        Wanted::Labelled(labels) => Some(labels),
        _ => None,
    };
    let chosen = Listed::read(cluster, namespace, labels)
        .await?
        .choose(wanted, ports)?;
    let now = cluster.server_time().await?;
    let intercepts = intercepts::list(cluster, Some(namespace)).await?;
    for facts in &chosen.facts {
        let workload = facts.workload.label();
        let has = |port| facts.workload.ports.iter().any(|own| own.number == port);
        let lost = intercepts.iter().find(|one| {
            one.spec.workload.label() == workload
                && intercepts::is_live(one, now)
                && !has(one.spec.port)
        });
        if let Some(lost) = lost {
            let (intercept, port) = (lost.name(), lost.spec.port);
            return Err(CliError::failed(
                format!(
                    "{workload}: {intercept} intercepts port {port}, which would no longer be prepared"
                ),
                format!(
                    "injector leave{} --force {}",
                    context_flags(&cluster.flags(Some(namespace))),
                    quote(intercept)
                ),
            ));
        }
    }
    Ok(chosen)
}

/// Renders what prepares these workloads.
pub fn prepare(
    install: &ClusterInstall,
    chosen: &Chosen,
    module: Module,
    limits: &Limits,
) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    let plugin = Plugin {
        module,
        limits: limits.clone(),
    };
    for facts in &chosen.facts {
        let workload = &facts.workload;
        let objects = workload_objects(&install.mesh, workload, &plugin).map_err(invalid)?;
        add(&mut prepared.objects, objects);
        let numbers: Vec<String> = workload
            .ports
            .iter()
            .map(|port| port.number.to_string())
            .collect();
        let word = if numbers.len() == 1 { "port" } else { "ports" };
        prepared.workloads.push(format!(
            "{}: {word} {}",
            workload.label(),
            numbers.join(", ")
        ));
        let left_out = facts
            .left_out
            .iter()
            .map(|reason| format!("{}: {reason}: left out", workload.label()));
        prepared.notes.extend(left_out);
        if facts.probes_go_through && limits.allow_all {
            prepared.notes.push(format!(
                "{}: the kubelet probes the program itself (sidecar.istio.io/rewriteAppHTTPProbers: \"false\"), so intercepts of everybody's requests are refused there",
                workload.label()
            ));
        }
    }
    prepared.notes.extend(
        chosen
            .skipped
            .iter()
            .map(|reason| format!("skipped: {reason}")),
    );
    Ok(prepared)
}

/// Adds those that are not there yet: workloads of a namespace share some.
pub fn add(objects: &mut Vec<Object>, more: impl IntoIterator<Item = Object>) {
    for object in more {
        let is_other = |known: &Object| {
            (known.kind(), known.namespace(), known.name())
                != (object.kind(), object.namespace(), object.name())
        };
        if objects.iter().all(is_other) {
            objects.push(object);
        }
    }
}

pub(super) fn invalid(error: InvalidFacts) -> CliError {
    let hint = match &error {
        InvalidFacts::RootNamespace(_) | InvalidFacts::RelayNamespace(_) => {
            "choose another namespace: -n NAME; or say which one is the mesh's root: --root-namespace NAME"
        }
        _ => "injector install --help",
    };
    CliError::failed(error, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed() -> Installed {
        Installed {
            replicas: 3,
            image: "r/injector:old".to_owned(),
            image_pull_secret: Some("pull".to_owned()),
            version: "0.0.9".to_owned(),
            revision: Some("canary".to_owned()),
            cluster_domain: Some("corp.example".to_owned()),
            has_presence: true,
        }
    }

    fn said() -> Said {
        Said {
            namespace: "injector-system".to_owned(),
            ..Said::default()
        }
    }

    #[test]
    fn what_was_said_once_need_not_be_said_again() {
        let install = said()
            .install(Some(&installed()), "istio-system".to_owned(), None)
            .unwrap();
        assert_eq!(install.mesh.relay_replicas, 3);
        assert_eq!(install.image, "r/injector:old");
        assert_eq!(
            install.version, "0.0.9",
            "the image stays, so the version does"
        );
        assert_eq!(install.image_pull_secret.as_deref(), Some("pull"));
        assert_eq!(install.revision.as_deref(), Some("canary"));
        assert_eq!(install.mesh.cluster_domain, "corp.example");
    }

    #[test]
    fn what_is_said_now_counts() {
        let said = Said {
            image: Some("r/injector:new".to_owned()),
            replicas: Some(1),
            ..said()
        };
        let install = said
            .install(Some(&installed()), "istio-system".to_owned(), None)
            .unwrap();
        assert_eq!(
            (install.mesh.relay_replicas, install.image.as_str()),
            (1, "r/injector:new")
        );
        assert_eq!(install.version, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn names_of_services_end_as_was_said_else_as_installed_else_as_the_mesh_says() {
        let domain = |said: Said, installed: Option<&Installed>, mesh: Option<&str>| {
            let root = "istio-system".to_owned();
            let said = Said {
                image: Some("i".to_owned()),
                ..said
            };
            said.install(installed, root, mesh.map(str::to_owned))
                .unwrap()
                .mesh
                .cluster_domain
        };
        let flag = Said {
            cluster_domain: Some("flag.example".to_owned()),
            ..said()
        };
        assert_eq!(domain(flag, Some(&installed()), None), "flag.example");
        assert_eq!(
            domain(said(), Some(&installed()), Some("mesh.example")),
            "corp.example"
        );
        assert_eq!(domain(said(), None, Some("mesh.example")), "mesh.example");
        assert_eq!(domain(said(), None, None), "cluster.local");
    }

    #[test]
    fn a_first_installation_must_say_which_image() {
        let error = said()
            .install(None, "istio-system".to_owned(), None)
            .unwrap_err();
        assert!(
            error.to_string().contains("--relay-image: expected"),
            "{error}"
        );
    }
}

//! What `install` comes to in a cluster, before anything of it is done: then it is done, or printed.

use intercept_core::Limits;
use intercept_kube::Cluster;
use intercept_manifest::istio::install::{ClusterInstall, Outbound};
use intercept_manifest::istio::{Module, Object};

use super::filter::filter;
use super::limits::limits;
use crate::args::{Global, How, Install, MeshFlags, OutboundFlags, Prepare, connect_patiently};
use crate::error::{CliError, Result};
use crate::install::outbound;
use crate::install::plan::{self, Filter, Prepared, Said};
use crate::install::runtime;
use crate::install::upgrade::{self, Stale};
use crate::install::workloads::{Chosen, Wanted};
use crate::install_args::InstallArgs;

/// What is asked for, in this cluster. Everything that can be refused is refused before anything is written.
pub struct Planned<'a> {
    /// Where.
    pub cluster: Cluster,
    /// The facts of the cluster part, as it is or will be.
    pub install: ClusterInstall,
    /// Is it another image than the one that runs?
    pub is_new_image: bool,
    /// The objects of the cluster part; `None`: it stays as it is.
    pub cluster_part: Option<Vec<Object>>,
    /// The workloads that are meant; `None`: none.
    pub chosen: Option<Chosen>,
    /// Connections of developers from the namespace into the cluster, with their objects; `None`: they stay as they are.
    pub outbound: Option<(Outbound, Vec<Object>)>,
    /// What they are prepared with.
    pub filter: Filter,
    /// How it is applied.
    pub how: &'a How,
    limits: Limits,
}

impl<'a> Planned<'a> {
    /// Asks the cluster, and refuses what can be refused.
    pub async fn new(global: &Global, args: &'a Install) -> Result<Self> {
        let Install {
            prepare, mesh, how, ..
        } = args;
        let wanted = wanted(prepare, mesh)?;
        let filter = filter(prepare.module.as_deref(), mesh.module_url.as_deref())?;
        let limits = limits(&prepare.limits)?;
        let cluster = connect_patiently(global).await?;
        let (install, installed) = plan::install(&cluster, &said(mesh)).await?;
        let is_only_part = wanted.is_none() && !mesh.outbound.outbound;
        let has_part = is_only_part || installed.is_none() || mesh.change_cluster_part();
        let outbound = match mesh.outbound.outbound {
            true => Some(outbound(&cluster, &install, &mesh.outbound).await?),
            false => None,
        };
        let is_deaf = installed
            .as_ref()
            .is_some_and(|installed| !installed.has_presence);
        if outbound.is_some() && is_deaf && !has_part {
            return Err(CliError::failed(
                format!(
                    "--outbound: the relays of {} do not say yet whether a tunnel is up",
                    install.mesh.namespace
                ),
                "upgrade them first: injector install --relay-image IMAGE",
            ));
        }
        let chosen = match wanted {
            Some(wanted) => {
                Some(plan::workloads(&cluster, cluster.namespace(), wanted, &prepare.port).await?)
            }
            None => None,
        };
        Ok(Self {
            is_new_image: installed.is_none_or(|installed| installed.image != install.image),
            cluster_part: has_part.then(|| plan::cluster_part(&install)).transpose()?,
            chosen,
            outbound,
            filter,
            how,
            limits,
            cluster,
            install,
        })
    }

    /// Refuses facts from which nothing can be rendered, whatever the filter's digest will be, and sidecars that could not run it.
    pub async fn check(&self) -> Result<()> {
        let some = Module {
            url: self.install.module_url(),
            sha256: "0".repeat(64),
        };
        let Some(chosen) = &self.chosen else {
            return Ok(());
        };
        let prepared = plan::prepare(&self.install, chosen, some, &self.limits)?;
        runtime::check(&self.cluster, &prepared.objects).await
    }

    /// What prepares the workloads that are meant, with the filter of now.
    pub async fn prepared(&self, chosen: &Chosen) -> Result<Prepared> {
        let module = self.filter.module(&self.cluster, &self.install).await?;
        plan::prepare(&self.install, chosen, module, &self.limits)
    }

    /// Workloads that a new image or another number of relays leaves behind, but for those that are meant anyway.
    pub async fn others(&self, module: Option<&Module>) -> Result<Vec<Stale>> {
        let mut found = upgrade::find(&self.cluster, &self.install, module).await?;
        let is_meant = |stale: &Stale| {
            let mut chosen = self.chosen.iter();
            chosen.any(|chosen| chosen.has(&stale.namespace, &stale.workload))
        };
        found.retain(|stale| !is_meant(stale));
        Ok(found)
    }

    /// Namespaces whose connections a new image or another number of relays leaves behind, each with the objects of now.
    pub async fn other_outbounds(&self) -> Result<Vec<(String, Vec<Object>)>> {
        let meant = self
            .outbound
            .as_ref()
            .map(|(meant, _)| meant.namespace.as_str());
        outbound::others(&self.cluster, &self.install, meant).await
    }

    /// Is it prepared again without more words?
    pub fn is_done_again(&self, stale: &Stale) -> bool {
        (stale.waits.is_none() || self.how.all_prepared) && stale.can_be_prepared()
    }

    /// What is said of one that is not.
    pub fn left(&self, stale: &Stale) -> String {
        format!(
            "{stale}: prepared for another version ({}); to prepare it again: {}, or all of them: {}",
            stale.waits.unwrap_or_default(),
            stale.command(),
            all_prepared(&self.install, &self.filter)
        )
    }
}

/// The command that prepares all workloads again, with what must be said again in it.
fn all_prepared(install: &ClusterInstall, filter: &Filter) -> String {
    let said = InstallArgs {
        module: match filter {
            Filter::Ours { .. } => None,
            Filter::Elsewhere(module) => Some(module.clone()),
        },
        ..InstallArgs::beside(&install.mesh.namespace)
    };
    format!("injector install --all-prepared{}", said.flags())
}

/// What the flags come to, with what was said before.
pub(super) async fn outbound(
    cluster: &Cluster,
    install: &ClusterInstall,
    flags: &OutboundFlags,
) -> Result<(Outbound, Vec<Object>)> {
    let namespace = cluster.namespace();
    let installed = outbound::installed(cluster, namespace).await?;
    let outbound = outbound_said(flags).outbound(namespace, installed);
    let objects = outbound::objects(install, &outbound)?;
    outbound::check_accounts(cluster, &outbound).await?;
    Ok((outbound, objects))
}

/// What the flags say about connections.
pub(super) fn outbound_said(flags: &OutboundFlags) -> outbound::Said {
    outbound::Said {
        to: flags.outbound_to.clone(),
        accounts: flags.outbound_as.clone(),
    }
}

/// What the flags say about the cluster part.
pub(super) fn said(flags: &MeshFlags) -> Said {
    Said {
        namespace: flags.relay_namespace.clone(),
        cluster_domain: flags.cluster_domain.clone(),
        root_namespace: flags.root_namespace.clone(),
        replicas: flags.replicas,
        image: flags.relay_image.clone(),
        image_pull_secret: flags.image_pull_secret.clone(),
        revision: flags.revision.clone(),
    }
}

/// Which workloads the flags mean; `None`: none at all.
pub(super) fn wanted<'a>(prepare: &'a Prepare, flags: &'a MeshFlags) -> Result<Option<Wanted<'a>>> {
    let wanted = match (prepare.workload.as_slice(), &flags.selector, flags.all) {
        (_, Some(labels), _) => Some(Wanted::Labelled(labels)),
        (_, _, true) => Some(Wanted::All),
        ([], None, false) => None,
        (names, None, false) => Some(Wanted::Named(names)),
    };
    let port = (!prepare.port.is_empty()).then_some("--port http");
    match port.or(prepare.limits.given()) {
        Some(flag) if wanted.is_none() => Err(CliError::usage(
            format!(
                "{}: of which workload?",
                flag.split(' ').next().unwrap_or(flag)
            ),
            format!("injector install --workload orders {flag}"),
        )),
        _ => Ok(wanted),
    }
}

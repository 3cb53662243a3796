//! `injector install` in a cluster: the meaning of the flags, the order of the steps, and the output.

use intercept_manifest::istio::Object;
use intercept_manifest::istio::install::ClusterInstall;
use intercept_manifest::printable::one_line;
use serde::Serialize;

use super::dry_run::{self, print_objects, tell};
use super::filter::filter;
use super::limits::limits;
use super::planned::{self, Planned, said, wanted};
use crate::args::{Global, Install, MeshFlags, Prepare, connect};
use crate::error::{CliError, Result};
use crate::install::apply::{self, CLUSTER_WIDE, Changed, RELAYS, RULES};
use crate::install::plan::{self, Said};
use crate::install::workloads::Chosen;
use crate::install::{old, outbound, rollout};
use crate::output::print::{self, Shown};

/// What `install` has to say.
#[derive(Debug, Default, Serialize)]
struct Report {
    objects: Vec<Changed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workloads: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Shown for Report {
    fn text(&self) -> String {
        let mut text = print::table(&self.objects.iter().map(row).collect::<Vec<_>>());
        for workload in &self.workloads {
            text.push_str(&format!(
                "\n{workload}: ready for intercepts; nothing is intercepted yet"
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("\nnote: {}", one_line(note)));
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn names(&self) -> Vec<&str> {
        self.objects
            .iter()
            .map(|changed| changed.object.as_str())
            .collect()
    }
}

fn row(changed: &Changed) -> Vec<String> {
    vec![changed.done.word().to_owned(), changed.object.clone()]
}

/// Installs, or prints what would be installed.
pub async fn run(global: &Global, args: &Install) -> Result<()> {
    let planned = Planned::new(global, args).await?;
    planned.check().await?;
    if args.how.dry_run {
        return dry_run::print(global, &planned).await;
    }
    let mut report = Report::default();
    if let Some(objects) = &planned.cluster_part {
        report.objects = apply_cluster_part(&planned, objects, global.quiet).await?;
    }
    if let Some(chosen) = &planned.chosen {
        prepare(&planned, chosen, &mut report).await?;
    }
    if let Some((outbound, objects)) = &planned.outbound {
        apply_outbound(
            &planned,
            &outbound.namespace,
            objects,
            global.quiet,
            &mut report,
        )
        .await?;
        report.notes.push(outbound::note(outbound));
    }
    if planned.cluster_part.is_some() {
        prepare_others(&planned, &mut report).await?;
        for (namespace, objects) in planned.other_outbounds().await? {
            let quiet = global.quiet;
            match apply_outbound(&planned, &namespace, &objects, quiet, &mut report).await {
                Err(_) if outbound::ends_with_namespace(&planned.cluster, &namespace).await => {
                    let note = format!("{namespace} is being deleted: its connections are left");
                    report.notes.push(note);
                }
                applied => applied?,
            }
        }
    }
    print::print(global.output, &report)
}

async fn apply_cluster_part(
    planned: &Planned<'_>,
    objects: &[Object],
    quiet: bool,
) -> Result<Vec<Changed>> {
    let (cluster, namespace) = (&planned.cluster, &planned.install.mesh.namespace);
    let mut changed = apply::apply(cluster, objects, planned.how.force_conflicts).await?;
    changed.extend(apply::prune(cluster, Some(namespace), RELAYS, objects).await?);
    changed.extend(apply::prune(cluster, None, CLUSTER_WIDE, objects).await?);
    if !planned.how.no_wait {
        rollout::wait(cluster, namespace, tell_waiting(quiet)).await?;
    }
    Ok(changed)
}

async fn apply_outbound(
    planned: &Planned<'_>,
    namespace: &str,
    objects: &[Object],
    quiet: bool,
    report: &mut Report,
) -> Result<()> {
    let cluster = &planned.cluster;
    let changed = apply::apply(cluster, objects, planned.how.force_conflicts).await?;
    report.objects.extend(changed);
    let pruned = apply::prune(cluster, Some(namespace), outbound::SETS, objects).await?;
    report.objects.extend(pruned);
    if !planned.how.no_wait {
        rollout::wait_outbound(cluster, namespace, objects, tell_waiting(quiet)).await?;
    }
    Ok(())
}

/// Says what is waited for.
fn tell_waiting(quiet: bool) -> impl FnMut(&str) {
    move |line| {
        if !quiet {
            eprintln!("waiting for {}", one_line(line));
        }
    }
}

async fn prepare(planned: &Planned<'_>, chosen: &Chosen, report: &mut Report) -> Result<()> {
    let cluster = &planned.cluster;
    let prepared = planned.prepared(chosen).await?;
    let removed = old::remove_entries(cluster, &prepared.objects).await?;
    let changed = apply::apply(cluster, &prepared.objects, planned.how.force_conflicts).await?;
    report.objects.extend(changed.into_iter().chain(removed));
    report.workloads = prepared.workloads;
    report.notes.extend(prepared.notes);
    if !planned.how.no_wait {
        let notes = rollout::wait_proxies(cluster, &prepared.objects).await;
        report.notes.extend(notes);
    }
    let namespace = Some(cluster.namespace());
    let pruned = apply::prune(cluster, namespace, RULES, &prepared.objects).await?;
    report.objects.extend(pruned);
    Ok(())
}

/// What is served is only known once it runs.
async fn prepare_others(planned: &Planned<'_>, report: &mut Report) -> Result<()> {
    let Planned {
        cluster,
        install,
        filter,
        how,
        ..
    } = planned;
    let module = match how.no_wait {
        true => None,
        false => Some(filter.module(cluster, install).await?),
    };
    for stale in planned.others(module.as_ref()).await? {
        if !planned.is_done_again(&stale) {
            report.notes.push(planned.left(&stale));
            continue;
        }
        report
            .objects
            .extend(stale.prepare(cluster, how.force_conflicts).await?);
        let drained = match stale.waits {
            Some(_) => "",
            None => "; nothing was drained",
        };
        report.notes.push(format!(
            "{stale}: prepared again for what is installed now{drained}"
        ));
    }
    Ok(())
}

/// `injector render istio`: everything that `install` with these flags applies, the cluster part included. Without workloads, no cluster is asked.
pub async fn render(global: &Global, prepare: &Prepare, flags: &MeshFlags) -> Result<()> {
    let wanted = wanted(prepare, flags)?;
    let filter = filter(prepare.module.as_deref(), flags.module_url.as_deref())?;
    let limits = limits(&prepare.limits)?;
    let said = said(flags);
    let Some(wanted) = wanted else {
        let root = said
            .root_namespace
            .clone()
            .unwrap_or_else(|| "istio-system".to_owned());
        let install = said.install(None, root, None)?;
        let mut objects = plan::cluster_part(&install)?;
        if flags.outbound.outbound {
            let namespace = global.namespace.as_deref().ok_or_else(|| {
                CliError::usage(
                    "--outbound: of which namespace?",
                    "injector render istio -n shop --outbound --relay-image IMAGE",
                )
            })?;
            let outbound = planned::outbound_said(&flags.outbound).outbound(namespace, None);
            objects.extend(outbound::objects(&install, &outbound)?);
        }
        print_objects(global.output, objects.iter())?;
        tell(global, assumed(&said, &install).as_slice());
        return Ok(());
    };
    let cluster = connect(global).await?;
    let (install, _) = plan::install(&cluster, &said).await?;
    let chosen = plan::workloads(&cluster, cluster.namespace(), wanted, &prepare.port).await?;
    let module = filter.module(&cluster, &install).await?;
    let prepared = plan::prepare(&install, &chosen, module, &limits)?;
    let mut objects = plan::cluster_part(&install)?;
    objects.extend_from_slice(&prepared.objects);
    if flags.outbound.outbound {
        let (_, of_outbound) = planned::outbound(&cluster, &install, &flags.outbound).await?;
        objects.extend(of_outbound);
    }
    print_objects(global.output, objects.iter())?;
    tell(global, &prepared.notes);
    Ok(())
}

/// What is taken for granted where no cluster is asked.
fn assumed(said: &Said, install: &ClusterInstall) -> Option<String> {
    said.cluster_domain.is_none().then(|| {
        format!(
            "no cluster was asked, so the names of Services are taken to end with {}; else say --cluster-domain DOMAIN",
            install.mesh.cluster_domain
        )
    })
}

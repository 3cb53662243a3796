//! `injector install` in a cluster: what the flags mean, in which order things are done, and what an operator is told.

use serde::Serialize;

use super::filter::filter;
use super::{Args, Prepare};
use crate::cli::{Format, Global};
use crate::cluster::{Cluster, kind};
use crate::commands::{connect, connect_patiently};
use crate::hint::{Failure, OrHint, Result};
use crate::install_line::Kept;
use crate::manifest::istio::Object;
use crate::manifest::istio::install::ClusterInstall;
use crate::manifest::istio::names::SYSTEM_NAMESPACE;
use crate::operator::again;
use crate::operator::apply::{self, Changed};
use crate::operator::plan::{self, Filter, Prepared, Said};
use crate::operator::rollout;
use crate::operator::workloads::{Chosen, Wanted};
use crate::print::{self, Shown};

/// What is said about a cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "In a cluster")]
#[group(skip)]
pub struct Flags {
    /// Prepare all workloads of the namespace with these labels, instead of --workload
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "workload")]
    pub selector: Option<String>,
    /// Prepare all workloads of the namespace that can be, instead of --workload
    #[arg(long, conflicts_with_all = ["workload", "selector"])]
    pub all: bool,
    /// Image of relay and module server, as `wasm-build image --relay` makes it [default: as installed]
    #[arg(long, value_name = "IMAGE")]
    pub relay_image: Option<String>,
    /// Secret in the relays' namespace with which the image is pulled
    #[arg(long, value_name = "NAME")]
    pub image_pull_secret: Option<String>,
    /// How many relays [default: as installed, else 2]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u16>,
    /// Revision of the mesh that injects the relays' sidecars (istio.io/rev) [default: as installed, else the mesh's default]
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Namespace of relays and module server
    #[arg(long, value_name = "NAME", default_value = SYSTEM_NAMESPACE)]
    pub relay_namespace: String,
    /// The mesh's root namespace, where nothing is ever written [default: as the mesh's configuration says]
    #[arg(long, value_name = "NAME")]
    pub root_namespace: Option<String>,
    /// The end of every Service's name [default: as installed, else as istiod says, else cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Where sidecars fetch the filter: http(s)://, with --module (the file that is there), or oci://…@sha256:…
    /// [default: the module server]
    #[arg(long, value_name = "URL")]
    pub module_url: Option<String>,
}

/// How it is applied.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "In a cluster")]
pub struct How {
    /// Print what would be applied, and apply nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take over fields that another program keeps
    #[arg(long)]
    pub force_conflicts: bool,
    /// Also prepare workloads again whose gate a new version changes, which drains open connections once
    /// [default: they are listed; those that drain nothing are always prepared again]
    #[arg(long, conflicts_with_all = ["workload", "selector", "all"])]
    pub all_prepared: bool,
    /// Do not wait for relays and module server, nor for the proxies of what is prepared; a new filter is then not passed on
    /// to prepared workloads
    #[arg(long)]
    pub no_wait: bool,
}

fn first(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    flags
        .iter()
        .find(|(_, given)| *given)
        .map(|(flag, _)| *flag)
}

impl Flags {
    /// The first flag that was given: none of them means anything behind a plain Envoy.
    pub fn given(&self) -> Option<&'static str> {
        first(&[
            ("--selector", self.selector.is_some()),
            ("--all", self.all),
            ("--module-url", self.module_url.is_some()),
        ])
        .or(self.cluster_part())
    }

    /// The first flag that says something about the cluster part.
    fn cluster_part(&self) -> Option<&'static str> {
        first(&[
            ("--relay-image", self.relay_image.is_some()),
            ("--image-pull-secret", self.image_pull_secret.is_some()),
            ("--replicas", self.replicas.is_some()),
            ("--revision", self.revision.is_some()),
            (
                "--relay-namespace",
                self.relay_namespace != SYSTEM_NAMESPACE,
            ),
            ("--root-namespace", self.root_namespace.is_some()),
            ("--cluster-domain", self.cluster_domain.is_some()),
        ])
    }

    /// Do they ask for a change of the cluster part, beside workloads?
    fn change_cluster_part(&self) -> bool {
        self.relay_image.is_some()
            || self.image_pull_secret.is_some()
            || self.replicas.is_some()
            || self.revision.is_some()
    }

    fn said(&self) -> Said {
        Said {
            namespace: self.relay_namespace.clone(),
            cluster_domain: self.cluster_domain.clone(),
            root_namespace: self.root_namespace.clone(),
            replicas: self.replicas,
            image: self.relay_image.clone(),
            image_pull_secret: self.image_pull_secret.clone(),
            revision: self.revision.clone(),
        }
    }
}

impl How {
    /// The first flag that was given.
    pub fn given(&self) -> Option<&'static str> {
        first(&[
            ("--dry-run", self.dry_run),
            ("--force-conflicts", self.force_conflicts),
            ("--all-prepared", self.all_prepared),
            ("--no-wait", self.no_wait),
        ])
    }
}

/// Which workloads the flags mean; `None`: none at all.
fn wanted<'a>(prepare: &'a Prepare, flags: &'a Flags) -> Result<Option<Wanted<'a>>> {
    let wanted = match (prepare.workload.as_slice(), &flags.selector, flags.all) {
        (_, Some(labels), _) => Some(Wanted::Labelled(labels)),
        (_, _, true) => Some(Wanted::All),
        ([], None, false) => None,
        (names, None, false) => Some(Wanted::Named(names)),
    };
    let port = (!prepare.port.is_empty()).then_some("--port http");
    match port.or(prepare.limits.given()) {
        Some(flag) if wanted.is_none() => Err(Failure::usage(
            format!(
                "{}: of which workload?",
                flag.split(' ').next().unwrap_or(flag)
            ),
            format!("injector install --workload orders {flag}"),
        )),
        _ => Ok(wanted),
    }
}

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
            text.push_str(&format!("\nnote: {note}"));
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
pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let wanted = wanted(&args.prepare, &args.mesh)?;
    let filter = filter(
        args.prepare.module.as_deref(),
        args.mesh.module_url.as_deref(),
    )?;
    args.prepare.limits.limits()?;
    let cluster = connect_patiently(global).await?;
    let (install, installed) = plan::install(&cluster, &args.mesh.said()).await?;
    let with_cluster_part =
        wanted.is_none() || installed.is_none() || args.mesh.change_cluster_part();
    // Everything that can be refused is refused before anything is written.
    let chosen = match wanted {
        Some(wanted) => {
            Some(plan::workloads(&cluster, cluster.namespace(), wanted, &args.prepare.port).await?)
        }
        None => None,
    };
    let objects = match with_cluster_part {
        true => plan::cluster_part(&install)?,
        false => Vec::new(),
    };
    let limits = args.prepare.limits.limits()?;
    if args.how.dry_run {
        let prepared = match &chosen {
            Some(chosen) => plan::prepare(
                &install,
                chosen,
                filter.module(&cluster, &install).await?,
                &limits,
            )?,
            None => Prepared::default(),
        };
        return print_objects(global.output, objects.iter().chain(&prepared.objects));
    }
    if let Some(chosen) = &chosen {
        // Facts from which nothing can be rendered, whatever the filter's digest will be.
        let some = crate::manifest::istio::Module {
            url: install.module_url(),
            sha256: "0".repeat(64),
        };
        plan::prepare(&install, chosen, some, &limits)?;
    }
    let mut report = Report::default();
    if with_cluster_part {
        report.objects =
            apply_cluster_part(&cluster, &install, &objects, args, global.quiet).await?;
        report.notes.extend(without_clock(&install));
    }
    if let Some(chosen) = &chosen {
        let module = filter.module(&cluster, &install).await?;
        let prepared = plan::prepare(&install, chosen, module, &limits)?;
        report
            .objects
            .extend(apply::apply(&cluster, &prepared.objects, args.how.force_conflicts).await?);
        report.workloads = prepared.workloads;
        report.notes.extend(prepared.notes);
        if !args.how.no_wait {
            let notes = rollout::wait_proxies(&cluster, &prepared.objects).await;
            report.notes.extend(notes);
        }
        // Rules for relays that are no longer there.
        let rules = [&kind::DESTINATION_RULE];
        report
            .objects
            .extend(apply::prune(&cluster, cluster.namespace(), &rules, &prepared.objects).await?);
    }
    if with_cluster_part {
        let named = chosen.unwrap_or_default();
        again(&cluster, &install, &filter, args, &named, &mut report).await?;
    }
    print::print(global.output, &report)
}

/// What an operator should know where API servers keep no Lease.
fn without_clock(install: &ClusterInstall) -> Option<String> {
    (!install.has_clock).then(|| {
        "no API server keeps a Lease in kube-system, by which the admission policies would know the time: only operators clear away what others left behind"
            .to_owned()
    })
}

async fn apply_cluster_part(
    cluster: &Cluster,
    install: &ClusterInstall,
    objects: &[Object],
    args: &Args,
    quiet: bool,
) -> Result<Vec<Changed>> {
    let namespace = &install.mesh.namespace;
    let mut changed = apply::apply(cluster, objects, args.how.force_conflicts).await?;
    changed.extend(apply::prune(cluster, namespace, &[&kind::SERVICE], objects).await?);
    if !args.how.no_wait {
        rollout::wait(cluster, namespace, |line| {
            if !quiet {
                eprintln!("waiting for {line}");
            }
        })
        .await?;
    }
    Ok(changed)
}

/// Workloads that a new image or another number of relays leaves behind, but for those that were named and are prepared by now. What is served is only known once it runs.
async fn again(
    cluster: &Cluster,
    install: &ClusterInstall,
    filter: &Filter,
    args: &Args,
    named: &Chosen,
    report: &mut Report,
) -> Result<()> {
    let module = match args.how.no_wait {
        true => None,
        false => Some(filter.module(cluster, install).await?),
    };
    let all = all_prepared(install, filter);
    let mut found = again::find(cluster, install, module.as_ref()).await?;
    found.retain(|stale| !named.has(&stale.namespace, &stale.workload));
    for stale in found {
        let label = format!("{} in {}", stale.workload, stale.namespace);
        let is_wanted = stale.waits.is_none() || args.how.all_prepared;
        if is_wanted && stale.can_be_prepared() {
            let changed = stale.prepare(cluster, args.how.force_conflicts).await?;
            report.objects.extend(changed);
            let drained = if stale.waits.is_some() {
                ""
            } else {
                "; nothing was drained"
            };
            report.notes.push(format!(
                "{label}: prepared again for what is installed now{drained}"
            ));
        } else {
            report.notes.push(format!(
                "{label}: prepared for another version ({}); to prepare it again: {}, or all of them: {all}",
                stale.waits.unwrap_or_default(),
                stale.command()
            ));
        }
    }
    Ok(())
}

/// The command that prepares all workloads again, with what must be said again in it.
fn all_prepared(install: &ClusterInstall, filter: &Filter) -> String {
    let said = Kept {
        relay_namespace: install.mesh.namespace.clone(),
        module: match filter {
            Filter::Ours { .. } => None,
            Filter::Elsewhere(module) => Some(module.clone()),
        },
        ..Kept::default()
    };
    format!("injector install --all-prepared{}", said.flags())
}

/// Objects with their comments, or as the API server takes them.
fn print_objects<'o>(format: Format, objects: impl Iterator<Item = &'o Object>) -> Result<()> {
    let objects: Vec<&Object> = objects.collect();
    let text = match format {
        Format::Text | Format::Yaml => {
            let documents: Vec<String> = objects
                .iter()
                .map(|object| object.yaml())
                .collect::<Result<_, _>>()
                .or_hint("render", "injector --version")?;
            documents.join("---\n")
        }
        Format::Json => {
            let items: Vec<_> = objects.iter().map(|object| object.value()).collect();
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
            format!("{list:#}\n")
        }
        Format::Name => {
            let mut text = String::new();
            for object in &objects {
                let kind = apply::kind_of(object)?;
                text.push_str(&format!(
                    "{}\n",
                    kind.label(object.namespace(), object.name())
                ));
            }
            text
        }
    };
    print::stdout(&text)
}

/// `injector render istio`: everything that `install` with these flags applies, the cluster part included. Without workloads, no cluster is asked.
pub async fn render(global: &Global, prepare: &Prepare, flags: &Flags) -> Result<()> {
    let wanted = wanted(prepare, flags)?;
    let filter = filter(prepare.module.as_deref(), flags.module_url.as_deref())?;
    let limits = prepare.limits.limits()?;
    let said = flags.said();
    let Some(wanted) = wanted else {
        let root = said
            .root_namespace
            .clone()
            .unwrap_or_else(|| "istio-system".to_owned());
        let install = said.install(None, root, None)?;
        let objects = plan::cluster_part(&install)?;
        print_objects(global.output, objects.iter())?;
        tell(global, &assumed(&said, &install));
        return Ok(());
    };
    let cluster = connect(global).await?;
    let (install, _) = plan::install(&cluster, &said).await?;
    let chosen = plan::workloads(&cluster, cluster.namespace(), wanted, &prepare.port).await?;
    let module = filter.module(&cluster, &install).await?;
    let prepared = plan::prepare(&install, &chosen, module, &limits)?;
    let mut notes = prepared.notes;
    notes.extend(without_clock(&install));
    let objects = plan::cluster_part(&install)?;
    print_objects(global.output, objects.iter().chain(&prepared.objects))?;
    tell(global, &notes);
    Ok(())
}

/// What is taken for granted where no cluster is asked.
fn assumed(said: &Said, install: &ClusterInstall) -> Vec<String> {
    let domain = said.cluster_domain.is_none().then(|| {
        format!(
            "no cluster was asked, so the names of Services are taken to end with {}; else say --cluster-domain DOMAIN",
            install.mesh.cluster_domain
        )
    });
    let clock = "no cluster was asked, so its API servers are taken to keep a Lease in kube-system, by which the admission policies know the time; \
                 `injector install --dry-run` asks, and prints the policies that fit";
    domain.into_iter().chain([clock.to_owned()]).collect()
}

/// Notes beside objects that are printed: on stderr, so that what is on stdout can be applied.
fn tell(global: &Global, notes: &[String]) {
    for note in notes.iter().filter(|_| !global.quiet) {
        eprintln!("note: {}", print::printable(note));
    }
}

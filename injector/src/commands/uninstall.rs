//! `injector uninstall`: takes away what `install` wrote, and only that, from a cluster or from a plain Envoy's directory.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use intercept_manifest::printable::one_line;
use serde::Serialize;

use crate::args::{Global, Uninstall, connect_patiently};
use crate::envoy::{Dir, EnvoyDirError, USUAL_ENVOY};
use crate::error::{CliError, Result};
use crate::install::apply::Changed;
use crate::install::{outbound, remove};
use crate::model::settled;
use crate::output::print::{self, Shown};
use crate::shell::{context_flags, quote};

/// How long to wait for Envoy to let go of an intercept.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs whichever form the flags mean.
pub async fn run(global: &Global, args: &Uninstall) -> Result<()> {
    match &global.envoy {
        Some(_) if !args.workload.is_empty() || args.all || args.outbound => Err(CliError::usage(
            "--workload, --all, --outbound: only in a cluster, but --envoy (or INJECTOR_ENVOY) chooses a plain Envoy",
            "leave one of them out; for the cluster: unset INJECTOR_ENVOY",
        )),
        Some(dir) => print::stdout(&plain(args, dir).await?),
        None => mesh(global, args).await,
    }
}

/// From a plain Envoy's directory. Returns what to tell the operator.
pub async fn plain(args: &Uninstall, dir: &Path) -> Result<String> {
    let shown = quote(&dir.to_string_lossy());
    let refused = |error: EnvoyDirError| {
        let hint = match &error {
            EnvoyDirError::NotInstalled(_) => "injector install --help".to_owned(),
            EnvoyDirError::Live { intercepts, .. } => format!(
                "injector --envoy {shown} leave --force {}, or: injector --envoy {shown} uninstall --force",
                intercepts.join(" ")
            ),
            _ => format!("injector --envoy {shown} uninstall --force, or: ls -la {shown}"),
        };
        CliError::failed(error, hint)
    };
    let installed = Dir::open(dir).map_err(refused)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    if args.force {
        end_intercepts(&installed).await;
    }
    installed.uninstall(now, args.force).map_err(refused)?;
    Ok(format!(
        "{} can no longer be intercepted by way of {shown}\n",
        installed.workload().name
    ))
}

/// Envoy keeps what it read last when the files go: the entries go first. Their clusters stay in it, for the requests that are under way.
async fn end_intercepts(installed: &Dir) {
    // What cannot be read is removed all the same.
    let names = installed.remove_entries().unwrap_or_default();
    let gone = names.iter().map(async |name| {
        let gone = installed.wait_gone(name, GONE_TIMEOUT).await;
        settled(gone, USUAL_ENVOY).await
    });
    join_all(gone).await;
}

#[derive(Debug, Serialize)]
struct Removed {
    objects: Vec<Changed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip)]
    nothing: String,
}

impl Shown for Removed {
    fn text(&self) -> String {
        if self.objects.is_empty() && self.notes.is_empty() {
            return self.nothing.clone();
        }
        let lines = self
            .objects
            .iter()
            .map(|changed| format!("{}  {}\n", changed.done.word(), one_line(&changed.object)));
        let notes = self
            .notes
            .iter()
            .map(|note| format!("note: {}\n", one_line(note)));
        lines.chain(notes).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.objects
            .iter()
            .map(|changed| changed.object.as_str())
            .collect()
    }
}

/// From a cluster: the workloads that are meant, else everything everywhere.
async fn mesh(global: &Global, args: &Uninstall) -> Result<()> {
    let cluster = connect_patiently(global).await?;
    let namespace = cluster.namespace();
    if args.outbound {
        let removed = Removed {
            objects: outbound::remove(&cluster, namespace).await?,
            notes: Vec::new(),
            nothing: format!("developers do not connect into the cluster from {namespace}\n"),
        };
        return print::print(global.output, &removed);
    }
    let is_everything = args.workload.is_empty() && !args.all;
    let within = (!is_everything).then_some(namespace);
    let mut prepared = remove::prepared(&cluster, within).await?;
    if !args.workload.is_empty() {
        prepared = remove::named(prepared, namespace, &args.workload)?;
    }
    if !args.force {
        let command = match is_everything {
            true => format!("injector uninstall{}", context_flags(&cluster.flags(None))),
            false => format!(
                "injector uninstall{} …",
                context_flags(&cluster.flags(Some(namespace)))
            ),
        };
        remove::check_unused(&cluster, within, &prepared, &command).await?;
    }
    let mut objects = remove::workloads(&cluster, within, &prepared).await?;
    let mut notes = Vec::new();
    if is_everything {
        let relays = args.relay_namespace.as_deref();
        objects.extend(outbound::remove_all(&cluster, relays).await?);
        let (removed, kept) = remove::cluster_part(&cluster, relays).await?;
        objects.extend(removed);
        notes = kept;
    }
    let nothing = match (is_everything, &args.relay_namespace) {
        (true, None) => "nothing of ours is in this cluster\n".to_owned(),
        (true, Some(relays)) => {
            format!(
                "nothing of ours is in {relays}, nor of the whole cluster, and no workload is prepared\n"
            )
        }
        (false, _) => format!("no workload of {namespace} is prepared\n"),
    };
    let removed = Removed {
        objects,
        notes,
        nothing,
    };
    print::print(global.output, &removed)
}

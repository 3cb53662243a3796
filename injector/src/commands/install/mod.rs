//! `injector install`: prepares a cluster and its workloads, or with `--envoy DIR` a directory for a plain Envoy. Which of the two, the flags say; one that belongs to the other is refused.

mod dry_run;
mod filter;
mod limits;
pub mod mesh;
pub mod plain;
mod planned;

use std::path::PathBuf;

pub use limits::LimitFlags;

use crate::args::Global;
use crate::hint::{Failure, Result};
use crate::print;

/// Prepare a cluster, and its workloads, for intercepts; it intercepts nothing yet
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
In a cluster, once (it makes roles and policies, so it takes an administrator):
  injector install --relay-image registry.example.com/injector:0.1.0
Then for each workload (the role injector-operator is enough), or for all of a namespace:
  injector install -n shop --workload orders
  injector install -n shop --all
With --dry-run it prints what it would apply, and on stderr what it would remove or leave as it is;
`injector render istio` prints all of it.

Behind a plain Envoy:
  injector --envoy /etc/envoy/intercept install --workload orders \\
    --port 8080:http --app 127.0.0.1:18080 --module /etc/envoy/filter.wasm \\
    --relay-data 10.0.0.7:8080 --relay-control 10.0.0.7:7070
  injector --envoy /etc/envoy/intercept render envoy    # for Envoy's bootstrap

Run again with other flags, it changes what it wrote and keeps the intercepts.")]
pub struct Args {
    /// What is prepared.
    #[command(flatten)]
    pub prepare: Prepare,
    /// In a cluster.
    #[command(flatten)]
    pub mesh: mesh::Flags,
    /// How it is applied in a cluster.
    #[command(flatten)]
    pub how: mesh::How,
    /// Behind a plain Envoy.
    #[command(flatten)]
    pub plain: plain::Flags,
}

/// What is prepared, in a cluster or not.
#[derive(Debug, Clone, clap::Args)]
pub struct Prepare {
    /// Workload to prepare: its name, or its kind as well as in `deploy/orders` (repeatable);
    /// behind a plain Envoy what developers call the service
    #[arg(long, value_name = "NAME")]
    pub workload: Vec<String>,
    /// Port of it, by its Service's name or number or the container's (repeatable) [default: all that speak HTTP];
    /// behind a plain Envoy where that listens, and what developers call it: LISTEN[:NAME]
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// The filter, filter.wasm: behind a plain Envoy where that can read it; in a cluster the file that is served there
    /// [default: what the module server hands out]
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// What is allowed.
    #[command(flatten)]
    pub limits: LimitFlags,
}

/// Runs whichever form the flags mean.
pub async fn run(global: &Global, args: &Args) -> Result<()> {
    let Some(dir) = &global.envoy else {
        if let Some(flag) = args.plain.given() {
            return Err(Failure::usage(
                format!("{flag}: only behind a plain Envoy, whose directory --envoy names"),
                "injector --envoy DIR install …, or leave it out: in a cluster it is found out",
            ));
        }
        return mesh::run(global, args).await;
    };
    match args.mesh.given().or(args.how.given()) {
        Some(flag) => Err(Failure::usage(
            format!(
                "{flag}: only in a cluster, but --envoy (or INJECTOR_ENVOY) chooses a plain Envoy"
            ),
            "leave one of them out; for the cluster: unset INJECTOR_ENVOY",
        )),
        None => print::stdout(&plain::run(args, dir)?),
    }
}

#[cfg(test)]
mod tests;

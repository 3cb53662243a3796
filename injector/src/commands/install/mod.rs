//! `injector install`: prepares a cluster and its workloads, or with `--envoy DIR` a directory for a plain Envoy. Which of the two, the flags say; one that belongs to the other is refused.

mod dry_run;
mod filter;
mod limits;
pub mod mesh;
pub mod plain;
mod planned;

use crate::args::{Global, Install};
use crate::error::{CliError, Result};
use crate::output::print;

/// Runs whichever form the flags mean.
pub async fn run(global: &Global, args: &Install) -> Result<()> {
    let Some(dir) = &global.envoy else {
        if let Some(flag) = args.plain.given() {
            return Err(CliError::usage(
                format!("{flag}: only behind a plain Envoy, whose directory --envoy names"),
                "injector --envoy DIR install …, or leave it out: in a cluster it is found out",
            ));
        }
        return mesh::run(global, args).await;
    };
    match args.mesh.given().or(args.how.given()) {
        Some(flag) => Err(CliError::usage(
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

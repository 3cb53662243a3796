//! `injector --envoy DIR uninstall`: takes away what `install` wrote, and only that.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::curl::quote;
use crate::envoy::{Dir, EnvoyDirError};
use crate::hint::{Failure, Result};

/// Take away what `install` wrote; first take its pieces out of Envoy's bootstrap
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Also while intercepts are live: they end at once
    #[arg(long)]
    pub force: bool,
}

/// Returns what to tell the operator.
pub fn run(args: &Args, dir: &Path) -> Result<String> {
    let shown = quote(&dir.to_string_lossy());
    let refused = |error: EnvoyDirError| {
        let hint = match &error {
            EnvoyDirError::NotInstalled(_) => "injector install --help".to_owned(),
            EnvoyDirError::Live { intercepts, .. } => format!(
                "injector leave --force {}, or: injector --envoy {shown} uninstall --force",
                intercepts.join(" ")
            ),
            _ => format!("injector --envoy {shown} uninstall --force, or: ls -la {shown}"),
        };
        Failure::failed(error, hint)
    };
    let installed = Dir::open(dir).map_err(refused)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    installed.uninstall(now, args.force).map_err(refused)?;
    Ok(format!(
        "{} can no longer be intercepted by way of {shown}\n",
        installed.workload().name
    ))
}

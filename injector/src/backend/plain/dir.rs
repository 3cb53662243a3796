//! What backend and target do alike with a plain Envoy's directory.

use std::time::{SystemTime, UNIX_EPOCH};

use intercept_core::Intercept;
use intercept_tunnel::developer::Tcp;
use intercept_tunnel::relay_end::RelayEnd;

use crate::envoy::{Dir, EnvoyDirError};
use crate::error::{CliError, Result};

/// The relay of this workload.
pub fn relay(dir: &Dir) -> RelayEnd {
    RelayEnd::tcp(dir.workload().relay.control)
}

/// Where connections into the cluster are opened.
pub fn outbound(dir: &Dir) -> Result<RelayEnd> {
    let Some(address) = dir.workload().relay.outbound else {
        return Err(CliError::failed(
            format!("outbound connections: not open at {}", dir.path().display()),
            "an operator opens them: injector outbound --help",
        ));
    };
    Ok(RelayEnd::new(
        address.to_string(),
        "is `injector outbound` running? Without a cluster: injector sandbox",
        Tcp(address),
    ))
}

/// Removes the entry of this name and address.
pub fn remove(dir: &Dir, name: &str, address: &str) -> Result<Option<Intercept>> {
    match dir.remove(name, Some(address)) {
        // Uninstalled meanwhile: then it is gone as well.
        Err(EnvoyDirError::NotInstalled(_)) => Ok(None),
        removed => Ok(removed?),
    }
}

/// Removes this cluster, if no entry needs it.
pub fn clear(dir: &Dir, cluster: &str) -> Result<()> {
    match dir.clear_clusters(&[cluster]) {
        Err(EnvoyDirError::NotInstalled(_)) => Ok(()),
        other => Ok(other?),
    }
}

/// Seconds since the epoch, by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

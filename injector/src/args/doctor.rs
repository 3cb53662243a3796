//! Flags of `injector doctor`.

use clap::Args;
use intercept_manifest::istio::names::SYSTEM_NAMESPACE;

/// Look for what could keep intercepts from working
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  injector doctor                 # the cluster part, what you may do, and this machine
  injector doctor -n shop orders  # this service as well
  injector doctor orders -o json

Exit code 1 if something is found with which intercepts cannot work.")]
pub struct Doctor {
    /// The service or workload to look at
    pub target: Option<String>,
    /// Namespace of relays and module server
    #[arg(long, value_name = "NAME", default_value = SYSTEM_NAMESPACE)]
    pub relay_namespace: String,
}

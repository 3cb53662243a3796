//! Flags of `injector uninstall`.

use clap::Args;

/// Take away what `install` wrote: of workloads, or all of it
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  injector uninstall -n shop --workload orders    # no longer to be intercepted
  injector uninstall -n shop --outbound           # no more connections of developers from there
  injector uninstall                              # everything, from the whole cluster
  injector --envoy DIR uninstall                  # first take its pieces out of Envoy's bootstrap")]
pub struct Uninstall {
    /// Only this workload's preparation, in a cluster (repeatable)
    #[arg(long, value_name = "NAME")]
    pub workload: Vec<String>,
    /// Only the preparation of all workloads of the namespace, in a cluster
    #[arg(long, conflicts_with = "workload")]
    pub all: bool,
    /// Only the connections of developers into the cluster from the namespace
    #[arg(long, conflicts_with_all = ["workload", "all"])]
    pub outbound: bool,
    /// Only relays, module server and controller of this namespace, in a cluster [default: wherever they are]
    #[arg(long, value_name = "NAME")]
    pub relay_namespace: Option<String>,
    /// Also while intercepts are live: they end at once
    #[arg(long)]
    pub force: bool,
}

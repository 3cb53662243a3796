//! Flags of `injector list`.

use clap::Args;

/// List all intercepts
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  injector list\n  injector list -A -o name\n  injector list -o json"
)]
pub struct List {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

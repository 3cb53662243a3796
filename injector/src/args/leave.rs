//! Flags of `injector leave`.

use clap::Args;

/// Remove intercepts, whether or not the command that made them still runs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  injector leave orders-bob\n  injector leave --all            # all of yours\n  injector leave --force orders-alice"
)]
pub struct Leave {
    /// Their names
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "NAME"
    )]
    pub names: Vec<String>,
    /// All of yours (with --force: everybody's)
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Also remove intercepts that other users own
    #[arg(long)]
    pub force: bool,
}

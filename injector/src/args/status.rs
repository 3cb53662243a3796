//! Flags of `injector status`.

use clap::Args;

/// Show intercepts in full
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  injector status\n  injector status orders-bob -o yaml")]
pub struct Status {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only this one
    pub name: Option<String>,
}

//! Flags of `injector logs`.

use clap::Args;

/// Print the log of an intercept in the background (`intercept --detach`)
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  injector logs orders-bob\n  injector logs orders-bob -f      # until it ends\n\nThe log of one that has ended stays until the same name starts again."
)]
pub struct Logs {
    /// Its name
    pub name: String,
    /// Go on printing until the intercept ends
    #[arg(short, long)]
    pub follow: bool,
}

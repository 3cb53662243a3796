//! Flags of `injector completions`.

use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  injector completions bash > ~/.local/share/bash-completion/completions/injector"
)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

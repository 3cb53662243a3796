//! `injector completions`: a script for a shell.

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::error::Result;
use crate::output::print;

/// Prints the script.
pub fn run(flags: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "injector", &mut script);
    print::stdout(&String::from_utf8_lossy(&script))
}

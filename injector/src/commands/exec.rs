//! `injector exec`: a further command in the network namespace of a running intercept's command.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::leave;
use crate::args::{Exec, Global};
use crate::backend;
use crate::error::{CliError, OrHint, Result};
use crate::outbound;
use crate::session::{NAME_VARIABLE, exec_child, program};
use crate::shell::quote;

/// Becomes the command. Never returns where that works.
pub async fn run(global: &Global, flags: &Exec) -> Result<u8> {
    if let Some(program) = flags.command.first() {
        program::find(program)?;
    }
    let backend = backend::detached(global).await?;
    let label = outbound::label(&backend, &flags.name);
    let Some(membership) = outbound::find(&label)? else {
        return missing(global, &flags.name).await;
    };
    let itself = std::env::current_exe().or_hint("injector", "injector exec --help")?;
    // A new start of this program has one thread, as joining needs.
    let error = Command::new(itself)
        .args(exec_child::arguments_inside(&flags.command, &membership))
        .env(NAME_VARIABLE, &flags.name)
        .exec();
    Err(error).or_hint("injector", "injector exec --help")
}

/// Says why there is no namespace, and what to do.
async fn missing(global: &Global, name: &str) -> Result<u8> {
    let all = backend::open(global).await?.all().await?;
    let place = global.context_flags();
    let found = all.iter().find(|found| found.name == name);
    Err(match found {
        Some(found) => CliError::failed(
            format!("{name}: no command of this intercept has a network namespace on this machine"),
            format!(
                "give it one: injector intercept{place} {} --name={} --replace --outbound=namespace -- CMD",
                quote(&found.workload),
                quote(name)
            ),
        ),
        None => leave::unknown(name, all.iter().map(|found| &found.name), &place),
    })
}

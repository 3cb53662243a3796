//! One file per command: what it does with its arguments. Knows neither how arguments are read nor how an error is printed.

pub mod completions;
pub mod explain;
pub mod intercept;
pub mod leave;
pub mod list;
pub mod relay;

use crate::cli::{Cli, Command};
use crate::hint::{OrHint, Result};

/// Runs a command to its end; its exit code.
pub fn run(cli: &Cli) -> Result<u8> {
    let global = &cli.global;
    match &cli.command {
        Command::Explain(flags) => explain::run(global, flags).map(|()| 0),
        Command::Completions(flags) => completions::run(flags).map(|()| 0),
        Command::Intercept(flags) => block_on(intercept::run(global, flags)),
        Command::Leave(flags) => block_on(leave::run(global, flags)).map(|()| 0),
        Command::List(_) => block_on(list::run(global)).map(|()| 0),
        Command::Status(flags) => block_on(list::status(global, flags)).map(|()| 0),
        Command::Relay(flags) => block_on(relay::run(global, flags)).map(|()| 0),
    }
}

fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.or_hint("threads", "ulimit -u")?;
    let outcome = runtime.block_on(command);
    // A blocking read of stdin must not hold up the end.
    runtime.shutdown_background();
    outcome
}

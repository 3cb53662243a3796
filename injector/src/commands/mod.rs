//! One file per command: what it does with its arguments. Knows neither how arguments are read nor how an error is printed.

pub mod completions;
pub mod controller;
pub mod doctor;
pub mod exec;
pub mod explain;
pub mod forward;
pub mod install;
pub mod intercept;
pub mod leave;
pub mod list;
pub mod logs;
pub mod module_server;
pub mod outbound;
pub mod relay;
pub mod render;
pub mod sandbox;
pub mod status;
pub mod uninstall;

use crate::args::{Cli, Command, Global};
use crate::error::{CliError, OrHint, Result};

/// Runs a command to its end; its exit code.
pub fn run(cli: &Cli) -> Result<u8> {
    let global = &cli.global;
    one_place(global)?;
    match &cli.command {
        Command::Intercept(flags) => return block_on(intercept::run(global, flags)),
        Command::Exec(flags) => return block_on(exec::run(global, flags)),
        Command::Forward(flags) => block_on(forward::run(global, flags)),
        Command::Leave(flags) => block_on(leave::run(global, flags)),
        Command::Logs(flags) => block_on(logs::run(global, flags)),
        Command::List(flags) => block_on(list::run(global, flags)),
        Command::Status(flags) => block_on(status::run(global, flags)),
        Command::Doctor(flags) => return block_on(doctor::run(global, flags)),
        Command::Explain(flags) => block_on(explain::run(global, flags)),
        Command::Install(flags) => block_on(install::run(global, flags)),
        Command::Uninstall(flags) => block_on(uninstall::run(global, flags)),
        Command::Render(flags) => block_on(render::run(global, flags)),
        Command::Relay(flags) => block_on(relay::run(global, flags)),
        Command::Outbound(flags) => block_on(outbound::run(global, flags)),
        Command::ModuleServer(flags) => block_on(module_server::run(global, flags)),
        Command::Controller => block_on(controller::run(global)),
        Command::Sandbox(flags) => block_on(sandbox::run(flags)),
        Command::Completions(flags) => completions::run(flags),
    }
    .map(|()| 0)
}

/// A directory or a cluster: of both, which one is meant must not be guessed.
fn one_place(global: &Global) -> Result<()> {
    let flags = [
        ("--context", global.context.is_some()),
        ("--kubeconfig", global.kubeconfig.is_some()),
        ("--namespace", global.namespace.is_some()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) if global.envoy.is_some() => Err(CliError::usage(
            format!(
                "{flag}: chooses a cluster, but --envoy (or INJECTOR_ENVOY) chooses a plain Envoy"
            ),
            "leave one of them out; for the cluster: unset INJECTOR_ENVOY",
        )),
        _ => Ok(()),
    }
}

/// Runs it on a runtime of its own, which has no thread left when this returns.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_hint("threads", "ulimit -u")?;
    runtime.block_on(command)
}

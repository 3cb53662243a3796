//! One file per command: what it does with its arguments. Knows neither how arguments are read nor how an error is printed.

pub mod completions;
pub mod explain;
pub mod install;
pub mod intercept;
pub mod leave;
pub mod list;
pub mod relay;
pub mod render;
pub mod sandbox;
pub mod status;
pub mod uninstall;

use std::path::Path;

use crate::backend;
use crate::cli::{Cli, Command, Global};
use crate::cluster::{Cluster, KubeFlags};
use crate::hint::{Failure, OrHint, Result};
use crate::print;

/// Runs a command to its end; its exit code.
pub fn run(cli: &Cli) -> Result<u8> {
    let global = &cli.global;
    one_place(global)?;
    match &cli.command {
        Command::Intercept(flags) => return block_on(intercept::run(global, flags)),
        Command::Leave(flags) => block_on(leave::run(global, flags)),
        Command::List(flags) => block_on(list::run(global, flags)),
        Command::Status(flags) => block_on(status::run(global, flags)),
        Command::Explain(flags) => block_on(explain::run(global, flags)),
        Command::Install(flags) => write(global, |dir| install::run(flags, dir)),
        Command::Uninstall(flags) => write(global, |dir| uninstall::run(flags, dir)),
        Command::Render(flags) => write(global, |dir| render::run(flags, dir)),
        Command::Relay(flags) => block_on(relay::run(global, flags)),
        Command::Sandbox(flags) => block_on(sandbox::run(flags)),
        Command::Completions(flags) => completions::run(flags),
    }
    .map(|()| 0)
}

/// Runs an operator's command on the directory that the flags name, and prints what it has to say.
fn write(global: &Global, command: impl FnOnce(&Path) -> Result<String>) -> Result<()> {
    print::stdout(&command(backend::directory(global)?)?)
}

/// A directory or a cluster: whoever says both means one of them, and which one must not be guessed.
fn one_place(global: &Global) -> Result<()> {
    let flags = [
        ("--context", global.context.is_some()),
        ("--kubeconfig", global.kubeconfig.is_some()),
        ("--namespace", global.namespace.is_some()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) if global.envoy.is_some() => Err(Failure::usage(
            format!(
                "{flag}: chooses a cluster, but --envoy (or INJECTOR_ENVOY) chooses a plain Envoy"
            ),
            "leave one of them out; for the cluster: unset INJECTOR_ENVOY",
        )),
        _ => Ok(()),
    }
}

/// The cluster that the flags choose.
pub async fn connect(global: &Global) -> Result<Cluster> {
    let flags = KubeFlags {
        context: global.context.clone(),
        kubeconfig: global.kubeconfig.clone(),
        namespace: global.namespace.clone(),
    };
    Ok(Cluster::connect(&flags).await?)
}

fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_hint("threads", "ulimit -u")?;
    runtime.block_on(command)
}

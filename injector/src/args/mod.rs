//! The command line as plain data: clap's types and the help texts, nothing else. What the words mean is decided in `flags` and in `commands`.

mod completions;
mod doctor;
mod exec;
mod explain;
mod forward;
mod global;
mod install;
mod intercept;
mod leave;
mod list;
mod logs;
mod module_server;
mod outbound;
mod relay;
mod render;
mod sandbox;
mod status;
mod uninstall;

use std::sync::LazyLock;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::completions::Completions;
pub use self::doctor::Doctor;
pub use self::exec::Exec;
pub use self::explain::Explain;
pub use self::forward::ForwardCommand;
pub use self::global::{Format, Global, connect, connect_patiently, envoy_flag};
pub use self::install::{How, Install, LimitFlags, MeshFlags, OutboundFlags, PlainFlags, Prepare};
pub use self::intercept::{Conditions, Intercept, OutboundMode};
pub use self::leave::Leave;
pub use self::list::List;
pub use self::logs::Logs;
pub use self::module_server::ModuleServer;
pub use self::outbound::Outbound;
pub use self::relay::Relay;
pub use self::render::{Render, RenderEnvoy, RenderIstio, RenderWhat};
pub use self::sandbox::Sandbox;
pub use self::status::Status;
pub use self::uninstall::Uninstall;

const AFTER_HELP: &str = "\
Five minutes, no cluster:
  injector sandbox                        # in one terminal: Envoy, a service `orders`, a relay
  export INJECTOR_ENVOY=…                 # in another one: the lines that the sandbox prints
  injector intercept orders --port 3000 --http-header=Coder=Bob
  injector explain orders -H 'Coder: Bob' /api";

/// Personal intercepts: requests that match your rule go to your machine, everybody else's stay where they are
#[derive(Debug, Parser)]
#[command(name = "injector", version = version(), after_help = AFTER_HELP)]
pub struct Cli {
    /// Flags that stand before or after any command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the program's arguments. An empty `INJECTOR_ENVOY` counts as none, as `unset` for those who cannot.
    pub fn read() -> Result<Self, clap::Error> {
        let is_empty = std::env::var_os("INJECTOR_ENVOY").is_some_and(|value| value.is_empty());
        let command = match is_empty {
            true => Self::command().mut_arg("envoy", |envoy| envoy.env(None::<&str>)),
            false => Self::command(),
        };
        command
            .try_get_matches()
            .and_then(|matches| Self::from_arg_matches(&matches))
    }
}

/// With the commit, where the build says which (`INJECTOR_COMMIT`).
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let commit = option_env!("INJECTOR_COMMIT").unwrap_or("commit unknown");
        format!("{} ({commit})", env!("CARGO_PKG_VERSION"))
    });
    &VERSION
}

/// The commands.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "each one's help is its type's doc comment, which one here would replace"
)]
pub enum Command {
    Intercept(Box<Intercept>),
    Exec(Exec),
    Forward(ForwardCommand),
    Leave(Leave),
    Logs(Logs),
    List(List),
    Status(Status),
    Explain(Explain),
    Install(Box<Install>),
    Uninstall(Uninstall),
    Render(Render),
    Doctor(Doctor),
    Relay(Relay),
    Outbound(Box<Outbound>),
    ModuleServer(ModuleServer),
    /// Write accepted Intercepts into the mesh
    #[command(hide = true)]
    Controller,
    Sandbox(Sandbox),
    Completions(Completions),
}

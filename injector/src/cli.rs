//! The command line as plain data: clap's types and the help texts, nothing else. What the words mean is decided in `flags` and in `commands`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::cluster::KubeFlags;
use crate::commands::{doctor, install, module_server, render, sandbox, uninstall};
use crate::curl::quote;

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

/// Flags that stand before or after any command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The directory of files that a plain Envoy watches (`injector sandbox` prints it)
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "INJECTOR_ENVOY",
        hide_env_values = true
    )]
    pub envoy: Option<PathBuf>,
    /// The kubeconfig's context [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How to print what was asked for [default: text]
    #[arg(
        short,
        long,
        global = true,
        value_name = "text|json|yaml|name",
        default_value = "text",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub output: Format,
    /// Only errors on stderr: no block, no notes, no line per request
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Also tell of lease renewals and of the tunnel's comings and goings
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl Global {
    /// What chooses the place, with a blank before each word, to be repeated in a command that is shown.
    pub fn place_flags(&self) -> String {
        match &self.envoy {
            Some(dir) => envoy_flag(dir),
            None => self.kube().words(),
        }
    }

    /// The same for a command that looked at all namespaces, if it did.
    pub fn place_flags_of(&self, all_namespaces: bool) -> String {
        let all = if all_namespaces { " -A" } else { "" };
        format!("{}{all}", self.place_flags())
    }

    /// What chooses a cluster.
    pub fn kube(&self) -> KubeFlags {
        KubeFlags {
            context: self.context.clone(),
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

/// What chooses this directory, with a blank before it; nothing where it is exported.
pub fn envoy_flag(dir: &Path) -> String {
    match std::env::var_os("INJECTOR_ENVOY") {
        Some(exported) if exported == dir => String::new(),
        _ => format!(" --envoy {}", quote(&dir.to_string_lossy())),
    }
}

/// How a result is printed on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "each one's help is its type's doc comment, which one here would replace"
)]
pub enum Command {
    Intercept(Intercept),
    Leave(Leave),
    Logs(Logs),
    List(List),
    Status(Status),
    Explain(Explain),
    Install(Box<install::Args>),
    Uninstall(uninstall::Args),
    Render(render::Args),
    Doctor(doctor::Args),
    Relay(Relay),
    ModuleServer(module_server::Args),
    /// Write accepted Intercepts into the mesh
    #[command(hide = true)]
    Controller,
    Sandbox(sandbox::Args),
    Completions(Completions),
}

const INTERCEPT_HELP: &str = "\
Examples (a service `orders`, your program on port 3000):
  injector intercept orders --port 3000 --http-header=Personal-Intercept=126a72c7
  injector intercept orders --port 3000 --http-path-prefix=/api --http-header=Coder=Bob
  injector intercept orders --port 3000 --http-path-equal=/api/version --http-header=auto
  injector intercept orders --port 3000 --http-path-equal=/api/version
  injector intercept orders --port 3000 --http-path-regex='/(staging-)?api/.*'
  injector intercept orders --port 3000 -- npm start
  injector intercept orders --port 3000 --detach --env-file orders.env

Without a header or baggage flag, `--http-header=auto` is implied. All conditions must match.
Everything is undone when it ends: by Ctrl-C, by a signal, or when CMD ends. Exit code: CMD's own, else 0; 1 when it failed; 2 for wrong usage.
With --detach it lives on when the command has ended with 0: `injector logs NAME -f` shows its requests, `injector leave NAME` ends it.
On a mesh CMD gets the variables of the workload's container over your own, but keeps your PATH, HOME, USER, SHELL, TERM, PWD and the like.";

/// Send the requests that match to a port of this machine
#[derive(Debug, Args)]
#[command(after_help = INTERCEPT_HELP)]
pub struct Intercept {
    /// The service or workload to intercept: orders, or svc/orders, deploy/orders, sts/orders, ds/orders
    pub target: String,
    /// Port on this machine [default: the same number as the container's],
    /// and after a colon the service's port by name or number [default: the only one]
    #[arg(short, long, value_name = "DEV[:SERVICE]")]
    pub port: Option<String>,
    /// What to call it [default: TARGET-USER]
    #[arg(long)]
    pub name: Option<String>,
    /// How long it lives without this machine; renewed while it is there (5min to 24h)
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub lease: String,
    /// Create it although another intercept can match the same requests
    #[arg(long)]
    pub allow_overlap: bool,
    /// Take the place of your own intercept of this name although its tunnel is up
    #[arg(long)]
    pub replace: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on in the background once the intercept is live
    #[arg(long)]
    pub detach: bool,
    /// Write the environment of the workload's container to FILE, as `docker run --env-file` and dotenv read it (mode 0600)
    #[arg(long, value_name = "FILE", conflicts_with = "no_env")]
    pub env_file: Option<PathBuf>,
    /// Also pass on variables that can make programs run other code on this machine: NODE_OPTIONS, JAVA_TOOL_OPTIONS, …
    #[arg(long, conflicts_with = "no_env")]
    pub env_all: bool,
    /// Run CMD with your own environment only: nothing of the workload's is read
    #[arg(long)]
    pub no_env: bool,
    /// Run this once the intercept is live, with INJECTOR_INTERCEPT=NAME and the workload's environment; its end ends the intercept
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
    /// Which requests.
    #[command(flatten)]
    pub conditions: Conditions,
}

/// Which requests match.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which requests (all conditions must match)")]
pub struct Conditions {
    /// Header NAME has a value that REGEX matches entirely (repeat: all must match);
    /// `auto`: a header of your own, remembered; `all`: everybody's requests
    #[arg(long, value_name = "NAME=REGEX|auto|all")]
    pub http_header: Vec<String>,
    /// The path, without its query string, is PATH
    #[arg(long, value_name = "PATH")]
    pub http_path_equal: Vec<String>,
    /// The path begins with PREFIX, as text
    #[arg(long, value_name = "PREFIX")]
    pub http_path_prefix: Vec<String>,
    /// REGEX matches the whole path, with or without the leading slash
    #[arg(long, value_name = "REGEX")]
    pub http_path_regex: Vec<String>,
    /// Member KEY of the `baggage` header has a value that REGEX matches entirely (repeat: all)
    #[arg(long, value_name = "KEY=REGEX")]
    pub baggage: Vec<String>,
}

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
    /// Somebody else's, too
    #[arg(long)]
    pub force: bool,
}

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

/// List all intercepts
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  injector list\n  injector list -A -o name\n  injector list -o json"
)]
pub struct List {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

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

const EXPLAIN_USAGE: &str = "\
injector explain [OPTIONS] TARGET PATH
       injector explain [OPTIONS] --config FILE PATH";

const EXPLAIN_HELP: &str = "\
Examples:
  injector explain orders -H 'Coder: Bob' /api/version          # the intercepts of a service
  injector explain --config plugin.json -X POST -H 'Coder: Bob' --port 8080 /api
  injector explain --config - -o json /api < plugin.json

Exit code 0 whether or not an intercept takes the request.";

/// Say which intercept takes a request, and why each other one does not
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_HELP, override_usage = EXPLAIN_USAGE)]
pub struct Explain {
    /// TARGET PATH; with --config just PATH (a query string may follow)
    #[arg(required = true, num_args = 1..=2, value_names = ["TARGET", "PATH"], hide = true)]
    pub words: Vec<String>,
    /// Ask this plugin configuration (JSON; `-` is stdin) instead of a service's
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The request's method
    #[arg(
        short = 'X',
        long = "request",
        value_name = "METHOD",
        default_value = "GET"
    )]
    pub method: String,
    /// A header of the request (repeat)
    #[arg(short = 'H', long = "header", value_name = "'NAME: VALUE'")]
    pub headers: Vec<String>,
    /// The workload's port that it comes in on [default: every port is taken as asked for]
    #[arg(long)]
    pub port: Option<u16>,
}

/// Run the in-cluster end of the tunnels
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  injector relay --listen 0.0.0.0:8080 --listen 0.0.0.0:8081 --control 127.0.0.1:7070"
)]
pub struct Relay {
    /// Where requests of the mesh come in, HTTP/1.1 and h2c (repeat)
    #[arg(long, value_name = "ADDR", default_values = ["0.0.0.0:8080", "0.0.0.0:8081"])]
    pub listen: Vec<SocketAddr>,
    /// Where developer machines open tunnels, and where metrics are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub control: SocketAddr,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  injector completions bash > ~/.local/share/bash-completion/completions/injector"
)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

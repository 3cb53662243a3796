//! Flags of `injector intercept`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
Where an operator has opened connections into the cluster, CMD reaches it by name; `injector exec NAME -- psql -h postgres` joins it.
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
    /// Lead a port of this machine to a service in the cluster (repeat); SERVICE:PORT:LOCALPORT chooses it [default: the same, or a free one]
    #[arg(long, value_name = "SERVICE:PORT")]
    pub forward: Vec<String>,
    /// How CMD reaches the cluster: `namespace` (a network namespace of its own; Linux), `proxy` (HTTP_PROXY, ALL_PROXY), `off`, or `auto`: the first that works [default: auto]
    #[arg(
        long,
        value_name = "HOW",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub outbound: OutboundMode,
    /// Ports of CMD in its namespace that are reached at 127.0.0.1 of this machine: PORT,…, `off`, or `auto`: all [default: auto]
    #[arg(long, value_name = "PORTS")]
    pub publish: Option<String>,
    /// Do not add the intercept's own header to plain HTTP requests of CMD into the cluster, where it is missing
    #[arg(long)]
    pub no_mark: bool,
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

/// How a command reaches the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutboundMode {
    /// In a namespace, else by the variables of a proxy.
    Auto,
    /// In a network namespace of its own, or not at all.
    Namespace,
    /// By the variables of a proxy.
    Proxy,
    /// Not at all.
    Off,
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

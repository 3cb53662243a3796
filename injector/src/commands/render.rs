//! `injector render`: prints configuration for a reviewer, and changes nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::args::Global;
use crate::backend;
use crate::commands::install;
use crate::envoy::Dir;
use crate::hint::{Failure, OrHint, Result};
use crate::manifest::cluster;
use crate::manifest::envoy::{BootstrapOptions, bootstrap, pieces};
use crate::manifest::facts::Port;
use crate::manifest::yaml::{self, Piece};
use crate::print;

/// Print what would be applied, with comments, and change nothing
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = false)]
pub struct Args {
    /// What to print.
    #[command(subcommand)]
    pub what: What,
}

/// What can be printed.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum What {
    /// What `install` applies to a cluster, object by object
    Istio(Box<IstioArgs>),
    /// What a plain Envoy needs once, piece by piece
    Envoy(EnvoyArgs),
}

/// The flags of `render istio`: those of `install` that say what, and none that say how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  injector render istio --relay-image registry.example.com/injector:0.1.0            # the cluster part; asks no cluster
  injector render istio -n shop --workload orders --module filter.wasm               # with what prepares a workload")]
pub struct IstioArgs {
    /// What is prepared.
    #[command(flatten)]
    pub prepare: install::Prepare,
    /// In a cluster.
    #[command(flatten)]
    pub mesh: install::mesh::Flags,
}

/// The flags of `render envoy`.
#[derive(Debug, Clone, clap::Args)]
pub struct EnvoyArgs {
    /// Your cluster of the in-cluster version, where unmatched requests go; `PORT=NAME` for one of several ports [default: intercept-app|PORT]
    #[arg(long, value_name = "[PORT=]NAME", conflicts_with = "bootstrap")]
    pub app_cluster: Vec<String>,
    /// One complete configuration that starts, instead of pieces
    #[arg(long)]
    pub bootstrap: bool,
    /// Address of the listeners in a complete configuration
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), requires = "bootstrap")]
    pub listen: IpAddr,
    /// One line per request on standard output, in a complete configuration
    #[arg(long, requires = "bootstrap")]
    pub access_log: bool,
}

/// Prints it.
pub async fn run(global: &Global, args: &Args) -> Result<()> {
    match &args.what {
        What::Istio(args) => install::mesh::render(global, &args.prepare, &args.mesh).await,
        What::Envoy(args) => print::stdout(&envoy(args, backend::directory(global)?)?),
    }
}

/// Returns YAML.
pub fn envoy(args: &EnvoyArgs, dir: &Path) -> Result<String> {
    let installed = Dir::open(dir).or_hint("render envoy", "injector install --help")?;
    let workload = installed.workload();
    let pieces = if args.bootstrap {
        let options = BootstrapOptions {
            listen: args.listen,
            access_log: args.access_log,
            ..BootstrapOptions::default()
        };
        vec![Piece {
            comment: format!("A complete Envoy in front of {}.", workload.name),
            value: bootstrap(workload, installed.path(), &options),
        }]
    } else {
        let names = app_clusters(&args.app_cluster, &workload.ports)?;
        pieces(workload, installed.path(), &|port| {
            let named = names
                .iter()
                .rev()
                .find(|(number, _)| *number == port.number);
            named.map_or_else(|| cluster::app_name(port.number), |(_, name)| name.clone())
        })
    };
    yaml::documents(&pieces).or_hint("render envoy", "injector render --help")
}

/// The cluster of each port that has one. The name goes into Lua and YAML: visible characters, and none that would end a string.
fn app_clusters(flags: &[String], ports: &[Port]) -> Result<Vec<(u16, String)>> {
    let mut names = Vec::new();
    for flag in flags {
        let refused = |expected: &str| {
            Failure::usage(
                format!("--app-cluster {flag}: expected {expected}"),
                "injector render envoy --app-cluster orders, or --app-cluster 8080=orders",
            )
        };
        let (port, name) = match flag.split_once('=') {
            Some((port, name)) => (Some(port), name),
            None => (None, flag.as_str()),
        };
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(refused("the name of a cluster"));
        }
        let chosen: Vec<u16> = ports
            .iter()
            .filter(|known| {
                port.is_none_or(|port| port == known.name || port == known.number.to_string())
            })
            .map(|known| known.number)
            .collect();
        if chosen.is_empty() {
            return Err(refused("a port that was installed"));
        }
        names.extend(chosen.into_iter().map(|number| (number, name.to_owned())));
    }
    Ok(names)
}

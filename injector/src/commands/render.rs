//! `injector render`: prints configuration for a reviewer, and changes nothing.

use std::path::Path;

use intercept_manifest::cluster;
use intercept_manifest::envoy::bootstrap::{BootstrapOptions, bootstrap};
use intercept_manifest::envoy::pieces;
use intercept_manifest::facts::Port;
use intercept_manifest::yaml::{self, Piece};

use crate::args::{Global, Render, RenderEnvoy, RenderWhat};
use crate::backend;
use crate::commands::install;
use crate::envoy::Dir;
use crate::error::{CliError, OrHint, Result};
use crate::output::print;

/// Prints it.
pub async fn run(global: &Global, args: &Render) -> Result<()> {
    match &args.what {
        RenderWhat::Istio(args) => install::mesh::render(global, &args.prepare, &args.mesh).await,
        RenderWhat::Envoy(args) => print::stdout(&envoy(args, backend::directory(global)?)?),
    }
}

/// Returns YAML.
pub fn envoy(args: &RenderEnvoy, dir: &Path) -> Result<String> {
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
            CliError::usage(
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

//! Flags of `injector render`.

use std::net::{IpAddr, Ipv4Addr};

use clap::{Args, Subcommand};

use super::install::{MeshFlags, Prepare};

/// Print what would be applied, with comments, and change nothing
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = false)]
pub struct Render {
    /// What to print.
    #[command(subcommand)]
    pub what: RenderWhat,
}

/// What can be printed.
#[derive(Debug, Clone, Subcommand)]
pub enum RenderWhat {
    /// What `install` applies to a cluster, object by object
    Istio(Box<RenderIstio>),
    /// What a plain Envoy needs once, piece by piece
    Envoy(RenderEnvoy),
}

/// The flags of `render istio`: those of `install` that say what, and none that say how.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  injector render istio --relay-image registry.example.com/injector:0.1.0            # the cluster part; asks no cluster
  injector render istio -n shop --workload orders --module filter.wasm               # with what prepares a workload")]
pub struct RenderIstio {
    /// What is prepared.
    #[command(flatten)]
    pub prepare: Prepare,
    /// In a cluster.
    #[command(flatten)]
    pub mesh: MeshFlags,
}

/// The flags of `render envoy`.
#[derive(Debug, Clone, Args)]
pub struct RenderEnvoy {
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

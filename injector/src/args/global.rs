//! Flags that stand before or after any command, and the cluster that they choose.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use intercept_kube::{Cluster, KubeFlags};

use crate::error::Result;
use crate::shell::{context_flags, quote};

/// Flags that stand before or after any command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
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
    /// Also log lease renewals and tunnel state changes
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl Global {
    /// What chooses the place, with a blank before each word, to be repeated in a command that is shown.
    pub fn context_flags(&self) -> String {
        match &self.envoy {
            Some(dir) => envoy_flag(dir),
            None => context_flags(&self.kube()),
        }
    }

    /// The same for a command that looked at all namespaces, if it did.
    pub fn context_flags_of(&self, all_namespaces: bool) -> String {
        let all = if all_namespaces { " -A" } else { "" };
        format!("{}{all}", self.context_flags())
    }

    /// Writes a line to stderr, unless `--quiet`.
    pub fn log(&self) -> fn(&str) {
        match self.quiet {
            true => |_| {},
            false => |line| drop(writeln!(std::io::stderr(), "{line}")),
        }
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

/// The cluster that the flags choose.
pub async fn connect(global: &Global) -> Result<Cluster> {
    Ok(Cluster::connect(&global.kube()).await?)
}

/// The same for what must not be left half done: an API server that is just coming back is asked again for a while.
pub async fn connect_patiently(global: &Global) -> Result<Cluster> {
    Ok(connect(global).await?.patient(global.log()))
}

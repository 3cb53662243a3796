//! Flags of `injector forward`.

use clap::Args;

/// Lead ports of this machine to services in the cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  injector forward postgres:5432
  injector forward postgres:5432:15432 redis.shop:6379

It works where an operator has opened connections into the cluster, and until it ends: by Ctrl-C or a signal.
It intercepts nothing. SessionOptions an intercept: injector intercept … --forward SERVICE:PORT")]
pub struct ForwardCommand {
    /// What is reached, and the port of 127.0.0.1 that leads there [default: the same, or a free one]
    #[arg(value_name = "SERVICE:PORT[:LOCALPORT]", required = true)]
    pub forwards: Vec<String>,
}

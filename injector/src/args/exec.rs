//! Flags of `injector exec`.

use std::ffi::OsString;

use clap::Args;

/// Run a command in the network namespace of a running intercept's command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples (with `injector intercept orders -- npm start` in another terminal):
  injector exec orders-bob -- psql -h postgres
  injector exec orders-bob -- curl http://inventory/

CMD reaches what that command reaches: the cluster by name, the ports of its programs, and this machine.
It keeps this terminal, this directory and this environment. Exit code: CMD's own; 1 where there is no such namespace.")]
pub struct Exec {
    /// The intercept's name
    pub name: String,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

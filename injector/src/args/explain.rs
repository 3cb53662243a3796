//! Flags of `injector explain`.

use std::path::PathBuf;

use clap::Args;

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

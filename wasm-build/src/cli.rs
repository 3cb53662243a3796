//! The command line as plain data. Knows nothing of the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::image::Tag;

/// The size limit of `filter.wasm`, in bytes: 224 kB of 1000 bytes.
///
/// Every sidecar compiles the whole module before it is ready, and keeps it in memory.
pub const BUDGET: u64 = 224 * 1000;

/// Builds filter.wasm and its OCI image
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build filter.wasm, keep only the exports that Envoy calls, and hold it against its size budget
    Build(BuildArgs),
    /// Put filter.wasm into an OCI image layout that Istio accepts, or with --relay into the one that a cluster runs
    Image(ImageArgs),
}

/// The flags of `build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Where the module goes [default: target/filter.wasm in the checkout]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The most it may weigh, in bytes; above it the build fails and FILE stays as it was
    #[arg(long, value_name = "BYTES", default_value_t = BUDGET)]
    pub budget: u64,
}

/// The flags of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The module, as `wasm-build build` wrote it [default: target/filter.wasm in the checkout]
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// The image of relay and module server: `injector` as a static program, built for it, beside filter.wasm
    #[arg(long)]
    pub relay: bool,
    /// Take this static program instead of building one
    #[arg(long, value_name = "FILE", requires = "relay")]
    pub program: Option<PathBuf>,
    /// Build this program, PACKAGE/NAME, along with it: the tests' own, for instance
    #[arg(
        long,
        value_name = "PACKAGE/NAME",
        requires = "relay",
        conflicts_with = "program",
        hide = true
    )]
    pub also_build: Option<String>,
    /// Where the layout goes; replaced if it is one already [default: target/filter-image in the checkout, with --relay target/relay-image]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The image's name inside the layout [default: the module's version]
    #[arg(long, value_name = "TAG")]
    pub tag: Option<Tag>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_tag_that_no_registry_takes_is_a_usage_error() {
        let error = Cli::try_parse_from(["wasm-build", "image", "--tag", "a/b"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}

//! Flags of `injector sandbox`.

use clap::Args;

/// Try it without a cluster: Envoy, a demo service `orders` and the relay on this machine
#[derive(Debug, Clone, Args)]
pub struct Sandbox {
    /// Where the demo service is reached through Envoy [default: 8080, or another one if that is taken]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How many worker threads Envoy has
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
}

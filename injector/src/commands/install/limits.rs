//! What an operator allows intercepts to do, as flags.

use http::HeaderName;
use intercept_core::Limits;

use crate::flags;
use crate::hint::{Failure, Result};

/// The flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "What intercepts may do")]
pub struct LimitFlags {
    /// Allow intercepts of everybody's requests (--http-header=all)
    #[arg(long)]
    pub allow_all: bool,
    /// Longest lease, 5min to 24h
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub max_lease: String,
    /// Header that conditions may use, `baggage` for baggage (repeatable) [default: any]
    #[arg(long, value_name = "NAME")]
    pub header_name: Vec<String>,
}

impl LimitFlags {
    /// Checked.
    pub fn limits(&self) -> Result<Limits> {
        let mut names = Vec::new();
        for name in &self.header_name {
            let token = name.strip_prefix(':').unwrap_or(name);
            HeaderName::from_bytes(token.as_bytes()).map_err(|_| {
                Failure::usage(
                    format!("--header-name {name}: expected a header's name"),
                    "injector install … --header-name x-intercept-id",
                )
            })?;
            names.push(name.to_ascii_lowercase());
        }
        Ok(Limits {
            allow_all: self.allow_all,
            max_lease_seconds: flags::max_lease(&self.max_lease)?.as_secs(),
            header_names: (!names.is_empty()).then_some(names),
        })
    }
}

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
    /// Longest lease, 5min to 24h [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub max_lease: Option<String>,
    /// Header that conditions may use, `baggage` for baggage (repeatable) [default: any]
    #[arg(long, value_name = "NAME")]
    pub header_name: Vec<String>,
}

impl LimitFlags {
    /// The first flag that was given, with an example of its value: none of them means anything without a workload.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--allow-all", self.allow_all),
            ("--max-lease 8h", self.max_lease.is_some()),
            ("--header-name x-intercept-id", !self.header_name.is_empty()),
        ];
        let given = flags.into_iter().find(|(_, given)| *given);
        given.map(|(flag, _)| flag)
    }

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
        let max_lease_seconds = match &self.max_lease {
            Some(time) => flags::max_lease(time)?.as_secs(),
            None => Limits::default().max_lease_seconds,
        };
        Ok(Limits {
            allow_all: self.allow_all,
            max_lease_seconds,
            header_names: (!names.is_empty()).then_some(names),
        })
    }
}

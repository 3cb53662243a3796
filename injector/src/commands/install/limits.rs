//! What an operator allows intercepts to do, as flags.

use http::HeaderName;
use intercept_core::Limits;

use crate::hint::{Failure, Result};

/// Leases may be limited to this and more, in seconds: a shorter one could not be renewed in peace.
const SHORTEST_LEASE: u64 = 5 * 60;

/// The longest limit, in seconds.
const LONGEST_LEASE: u64 = 24 * 3_600;

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

fn usage(error: impl std::fmt::Display, hint: &str) -> Failure {
    Failure::usage(error, format!("injector install … {hint}"))
}

impl LimitFlags {
    /// Checked.
    pub fn limits(&self) -> Result<Limits> {
        let mut names = Vec::new();
        for name in &self.header_name {
            let token = name.strip_prefix(':').unwrap_or(name);
            HeaderName::from_bytes(token.as_bytes()).map_err(|_| {
                usage(
                    format!("--header-name {name}: expected a header's name"),
                    "--header-name x-intercept-id",
                )
            })?;
            names.push(name.to_ascii_lowercase());
        }
        Ok(Limits {
            allow_all: self.allow_all,
            max_lease_seconds: max_lease(&self.max_lease)?,
            header_names: (!names.is_empty()).then_some(names),
        })
    }
}

/// A number and one of `s`, `min`, `h`.
fn max_lease(flag: &str) -> Result<u64> {
    let split = flag
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(flag.len());
    let (number, unit) = flag.split_at(split);
    let unit = match unit {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|seconds| (SHORTEST_LEASE..=LONGEST_LEASE).contains(seconds))
        .ok_or_else(|| {
            usage(
                format!("--max-lease {flag}: expected a time from 5min to 24h"),
                "--max-lease 8h",
            )
        })
}

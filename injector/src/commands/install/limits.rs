//! What an operator allows intercepts to do, as flags.

use http::HeaderName;
use intercept_core::Limits;

use crate::args::LimitFlags;
use crate::error::{CliError, Result};
use crate::flags;

/// Checked.
pub fn limits(flags: &LimitFlags) -> Result<Limits> {
    let mut names = Vec::new();
    for name in &flags.header_name {
        let token = name.strip_prefix(':').unwrap_or(name);
        HeaderName::from_bytes(token.as_bytes()).map_err(|_| {
            CliError::usage(
                format!("--header-name {name}: expected a header's name"),
                "injector install … --header-name x-intercept-id",
            )
        })?;
        names.push(name.to_ascii_lowercase());
    }
    let max_lease_seconds = match &flags.max_lease {
        Some(time) => flags::max_lease(time)?.as_secs(),
        None => Limits::default().max_lease_seconds,
    };
    Ok(Limits {
        allow_all: flags.allow_all,
        max_lease_seconds,
        header_names: (!names.is_empty()).then_some(names),
    })
}

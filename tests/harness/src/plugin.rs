//! The filter's configuration written by hand, which the CLI would reject or make slowly.

use std::time::{SystemTime, UNIX_EPOCH};

use intercept_core::{Document, Intercept, Limits, MatchHeader, MatchPath, SCHEMA_VERSION};

/// Seconds since the epoch.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_secs()
}

/// An address without a tunnel.
pub const NOBODY: &str = "00000000000000000000000000000000";

/// A document without limits.
pub fn document(intercepts: impl IntoIterator<Item = (String, Intercept)>) -> Document {
    Document {
        version: SCHEMA_VERSION,
        limits: Limits {
            allow_all: true,
            ..Limits::default()
        },
        intercepts: intercepts.into_iter().collect(),
    }
}

/// A named entry with a lease of an hour that matches one header, for the tunnel with that address.
pub fn entry(
    name: &str,
    port: u16,
    address: &str,
    header: &str,
    value: &str,
) -> (String, Intercept) {
    let intercept = Intercept {
        port,
        cluster: format!("intercept|{port}|{name}"),
        address: address.to_owned(),
        owner: name.to_owned(),
        created: now(),
        headers: vec![MatchHeader {
            name: header.to_owned(),
            value: value.to_owned(),
        }],
        baggage: Vec::new(),
        path: None,
        expires: now() + 3_600,
    };
    (name.to_owned(), intercept)
}

/// The same for paths with a prefix only.
pub fn with_prefix((name, intercept): (String, Intercept), prefix: &str) -> (String, Intercept) {
    let path = Some(MatchPath::Prefix(prefix.to_owned()));
    (name, Intercept { path, ..intercept })
}

//! What an intercept means. One crate decides it, for the filter that runs in Envoy and for the CLI, so that the two can never disagree.
//!
//! Three steps, in this order: [`parse`] reads the plugin's configuration, [`Matcher::compile`] turns it into tables, [`Matcher::decide`] answers per request.
//! The first two may leave an entry out, each with its reason; the third cannot fail. Nothing here touches a host, a clock or a socket: what a request
//! looks like is behind [`Request`].
//!
//! ```
//! use intercept_core::{Matcher, Request, parse};
//!
//! struct FromBob;
//!
//! impl Request for FromBob {
//!     fn header(&self, name: &str) -> Option<Vec<u8>> {
//!         match name {
//!             "coder" => Some(b"Bob".to_vec()),
//!             ":path" => Some(b"/".to_vec()),
//!             _ => None,
//!         }
//!     }
//!
//!     fn is_port(&self, port: u16) -> bool {
//!         port == 8080
//!     }
//!
//!     fn now(&self) -> u64 {
//!         1_000
//!     }
//! }
//!
//! let (config, unread) = parse(
//!     br#"{"version": 1, "intercepts": {"orders-bob": {
//!         "port": 8080, "cluster": "intercept|orders-bob", "address": "9f2c41d07ab35e689f2c41d07ab35e68",
//!         "owner": "bob", "created": 0, "expires": 1060, "headers": [{"name": "Coder", "value": "B.*"}]}}}"#,
//! );
//! let (matcher, refused) = Matcher::compile(config);
//! assert!(unread.is_empty() && refused.is_empty());
//! let winner = matcher.decide(&FromBob).intercept;
//! assert_eq!(winner.map(|intercept| intercept.name()), Some("orders-bob"));
//! ```
//!
//! What each condition means is in docs/reference.md; `tests/conditions.rs` is that page in cases of one line. In code the meaning is one function, `Matcher::check`: the tables of
//! `matcher/index.rs` only spare calls of it, and [`Matcher::explain`] calls it for every intercept, without them.
//!
//! # Cost of a decision
//! A request that names no intercepted value costs one look-up per distinct header name in use, however many intercepts name exact values.
//! An intercept whose conditions are regexes only is tried against every request that carries its header; each such try is bounded by the size of a compiled pattern
//! ([`pattern::SIZE_LIMIT`]) times the length of the text it sees ([`pattern::TEXT_LIMIT`]), and all of them together by [`budget::DECISION_BUDGET`].

/// The filter's gauge of [`config_hash`], by its name in Prometheus.
pub const HASH_METRIC: &str = "intercept_config_hash";

/// The filter's gauge of [`Matcher::active`], counted when it took its configuration. It is too low where the proxy's clock and that of the leases' author are far apart.
pub const ACTIVE_METRIC: &str = "intercept_active_entries";

/// Where a proxy serves the two, on Istio's Prometheus port or on its admin interface.
pub const METRICS_PATH: &str = "/stats/prometheus?filter=intercept_(config_hash|active_entries)";

pub mod budget;
mod config;
mod explain;
mod interner;
mod invalid;
mod limits;
mod matcher;
mod path;
pub mod pattern;
mod request;
pub mod room;
pub mod target;

pub use config::{
    Config, Document, Intercept, InvalidConfig, Limits, MatchBaggage, MatchHeader, MatchPath,
    Rejected, SCHEMA_VERSION, TEXT_SCHEMA_VERSION, config_hash, parse,
};
pub use explain::{Considered, Verdict};
pub use invalid::{InvalidIntercept, Unsatisfiable};
pub use limits::{is_lease_too_long, validate};
pub use matcher::{Bypass, Compiled, Matcher, Outcome};
pub use request::{Request, header_key, is_mirror, is_probe_exempt};

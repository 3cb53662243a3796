//! Defines what an intercept means, so that the filter in Envoy and the CLI always agree.
//!
//! Three steps, in this order: [`parse`] reads the configuration, [`Matcher::compile`] turns it into tables, [`Matcher::decide`] decides on each request.
//! The first two may reject an entry with a reason; the third cannot fail. Nothing here accesses a host, a clock or a socket: [`Request`] abstracts the
//! request.
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
//! docs/reference.md defines each condition; `tests/conditions.rs` covers that page in one-line cases. In code, one function defines the meaning, `Matcher::check`: the tables of
//! `matcher/index.rs` only save calls of it, and [`Matcher::explain`] calls it for every intercept, without tables.
//!
//! # Cost of a decision
//! A request without any intercepted value costs one look-up per distinct header name in use, however many intercepts name exact values.
//! An intercept with only regex conditions is checked against every request with its header. Each check is bounded by the size of a compiled pattern
//! ([`pattern::SIZE_LIMIT`]) times the length of the text ([`pattern::TEXT_LIMIT`]), and all checks together by [`budget::DECISION_BUDGET`].

/// The Prometheus name of the filter's gauge of [`config_hash`].
pub const HASH_METRIC: &str = "intercept_config_hash";

/// The filter's gauge of [`Matcher::active`], taken when it received its configuration.
///
/// It is too low if the clocks of the proxy and of the leases' author differ much.
pub const ACTIVE_METRIC: &str = "intercept_active_entries";

/// The path of both metrics, on Istio's Prometheus port or on the admin interface.
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

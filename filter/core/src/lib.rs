//! What an intercept means. One crate decides it, for the filter that runs in Envoy and for the CLI, so that the two can never disagree.
//!
//! Three steps, in this order: [`parse`] reads the plugin's configuration, [`Matcher::compile`] turns it into tables, [`Matcher::decide`] answers per request.
//! The first two may leave an entry out, each with its reason; the third cannot fail. Nothing here touches a host, a clock or a socket: what a request
//! looks like is behind [`Request`].
//!
//! # Cost of a decision
//! A request that names no intercepted value costs one look-up per distinct header name in use, however many intercepts name exact values.
//! An intercept whose conditions are regexes only is tried against every request that carries its header; each such try is bounded by the size of a compiled pattern
//! ([`pattern::SIZE_LIMIT`]) times the length of the text it sees ([`pattern::TEXT_LIMIT`]).

mod config;
mod explain;
mod limits;
mod matcher;
pub mod pattern;
mod request;

pub use config::{
    Config, Document, Intercept, InvalidConfig, Limits, MatchBaggage, MatchHeader, MatchPath,
    Rejected, SCHEMA_VERSION, parse,
};
pub use explain::{Considered, Verdict};
pub use limits::{InvalidIntercept, validate};
pub use matcher::{Compiled, Matcher, Outcome, header_key, is_mirror, is_probe_exempt};
pub use request::Request;

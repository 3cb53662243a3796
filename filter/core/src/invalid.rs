//! Why an entry is left out, and why no request meets a condition.

use crate::budget::{COMPILE_BUDGET, MAX_PER_OWNER};
use crate::pattern::InvalidPattern;

/// The most conditions, headers and baggage keys together, that one intercept may have: part of what bounds the cost of a decision.
pub const MAX_CONDITIONS: usize = 16;

/// What every cluster that takes matched requests is called. Without this rule, the right to edit an intercept would be one to send requests to any cluster that Envoy knows.
pub const CLUSTER_PREFIX: &str = "intercept|";

/// Why an entry is left out. Displays as the rest of a path into the document: `.headers[1].value: unclosed group`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIntercept {
    /// Not of the schema's shape.
    #[error(": {0}")]
    Unreadable(serde_json::Error),
    /// The same name twice in one document.
    #[error(": given twice")]
    Twice,
    /// Its name.
    #[error(": expected a DNS label (lower-case letters, digits and `-`, at most 63) as name")]
    Name,
    /// Port 0.
    #[error(".port: expected 1 to 65535")]
    Port,
    /// A cluster that is not ours.
    #[error(".cluster: expected `{CLUSTER_PREFIX}…` in visible ASCII")]
    Cluster,
    /// Not an address.
    #[error(".address: expected 32 lower-case hexadecimal digits")]
    Address,
    /// Too many conditions.
    #[error(": expected at most {MAX_CONDITIONS} conditions, found {0}")]
    Conditions(usize),
    /// A header name that is no RFC 9110 token.
    #[error(".headers[{0}].name: expected a header name, found `{1}`")]
    HeaderName(usize, String),
    /// A header name of `limits::RESERVED`.
    #[error(".headers[{0}].name: `{1}` is reserved, expected a header of your own")]
    ReservedHeader(usize, String),
    /// A header's value that no request has.
    #[error(".headers[{0}].value: {1}")]
    UnmetHeader(usize, Unsatisfiable),
    /// A baggage value that no request has.
    #[error(".baggage[{0}].value: {1}")]
    UnmetBaggage(usize, Unsatisfiable),
    /// A header's regex.
    #[error(".headers[{0}].value: {1}")]
    HeaderValue(usize, InvalidPattern),
    /// A baggage key that is no RFC 9110 token.
    #[error(".baggage[{0}].key: expected a token, found `{1}`")]
    BaggageKey(usize, String),
    /// A baggage value's regex.
    #[error(".baggage[{0}].value: {1}")]
    BaggageValue(usize, InvalidPattern),
    /// A path that no request can have.
    #[error(".path: expected a path that begins with `/` and has neither `?` nor `#`, found `{0}`")]
    Path(String),
    /// A path whose requests the filter always leaves to the cluster, see [`crate::target::carries_path`].
    #[error(
        ".path: `{0}` has a character that requests send percent-encoded only (a blank as `%20`)"
    )]
    PathCharacter(String),
    /// The path's regex.
    #[error(".path.regex: {0}")]
    PathRegex(InvalidPattern),
    /// Its owner has [`MAX_PER_OWNER`] older ones.
    #[error(": one owner has at most {MAX_PER_OWNER} intercepts on a workload")]
    TooManyOfOwner,
    /// There is no room for its regexes in [`COMPILE_BUDGET`].
    #[error(
        ": the regexes of all intercepts here are larger than {COMPILE_BUDGET} bytes together, and it is left out first (most intercepts of one owner, youngest)"
    )]
    TooLargeTogether,
    /// The operator does not allow it.
    #[error(": an intercept of all requests is not allowed here (limits.allow_all)")]
    All,
    /// The operator does not allow it.
    #[error(
        ".headers[{0}].name: `{1}` is not among the header names allowed here (limits.header_names)"
    )]
    ForbiddenHeader(usize, String),
    /// The operator does not allow it.
    #[error(
        ".baggage: the header `baggage` is not among the header names allowed here (limits.header_names)"
    )]
    ForbiddenBaggage,
}

/// Why no request meets a condition on a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsatisfiable {
    /// No regex at all: what an unset shell variable leaves.
    #[error("is empty, expected a regex (`^$` for an empty value)")]
    Empty,
    /// HTTP takes blanks off both ends of a value.
    #[error("begins or ends with a blank, which no header's value does")]
    Blank,
    /// Plain text with a control character in it.
    #[error("has a control character, which no header's value has")]
    Control,
    /// Of two plain texts for one name, a value can be one.
    #[error("excludes that of an earlier condition on this name, `{0}`")]
    Excluded(String),
}

//! Why an entry is rejected, and why no request can meet a condition.

use crate::budget::{COMPILE_BUDGET, MAX_PER_OWNER};
use crate::pattern::InvalidPattern;

/// How many header and baggage conditions one intercept may have. Limits the cost of a decision.
pub const MAX_CONDITIONS: usize = 16;

/// The required prefix of an intercept's upstream cluster.
///
/// Without it, permission to edit an intercept would allow to send requests to any cluster that Envoy knows.
pub const CLUSTER_PREFIX: &str = "intercept|";

/// Why an entry is rejected.
///
/// Displays as the rest of a path into the document: `.headers[1].value: unclosed group`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIntercept {
    /// The entry does not match the schema.
    #[error(": {0}")]
    Unreadable(serde_json::Error),
    /// A duplicate name.
    #[error(": given twice")]
    Twice,
    /// An invalid name.
    #[error(": expected a DNS label (lower-case letters, digits and `-`, at most 63) as name")]
    Name,
    /// Port 0.
    #[error(".port: expected 1 to 65535")]
    Port,
    /// A cluster without our prefix.
    #[error(".cluster: expected `{CLUSTER_PREFIX}…` in visible ASCII")]
    Cluster,
    /// An invalid address.
    #[error(".address: expected 32 lower-case hexadecimal digits")]
    Address,
    /// Too many conditions.
    #[error(": expected at most {MAX_CONDITIONS} conditions, found {0}")]
    Conditions(usize),
    /// A header name that is not an RFC 9110 token.
    #[error(".headers[{0}].name: expected a header name, found `{1}`")]
    HeaderName(usize, String),
    /// A header name in `limits::RESERVED`.
    #[error(".headers[{0}].name: `{1}` is reserved, expected a header of your own")]
    ReservedHeader(usize, String),
    /// A header value that no request can have.
    #[error(".headers[{0}].value: {1}")]
    UnmetHeader(usize, Unsatisfiable),
    /// A baggage value that no request can have.
    #[error(".baggage[{0}].value: {1}")]
    UnmetBaggage(usize, Unsatisfiable),
    /// An invalid regex for a header.
    #[error(".headers[{0}].value: {1}")]
    HeaderValue(usize, InvalidPattern),
    /// A baggage key that is not an RFC 9110 token.
    #[error(".baggage[{0}].key: expected a token, found `{1}`")]
    BaggageKey(usize, String),
    /// An invalid regex for a baggage value.
    #[error(".baggage[{0}].value: {1}")]
    BaggageValue(usize, InvalidPattern),
    /// A path that no request can have.
    #[error(".path: expected a path that begins with `/` and has neither `?` nor `#`, found `{0}`")]
    Path(String),
    /// A path whose requests always go to the cluster, see [`crate::target::carries_path`].
    #[error(
        ".path: `{0}` has a character that requests send percent-encoded only (a blank as `%20`)"
    )]
    PathCharacter(String),
    /// An invalid regex for the path.
    #[error(".path.regex: {0}")]
    PathRegex(InvalidPattern),
    /// The owner has [`MAX_PER_OWNER`] older intercepts.
    #[error(": one owner has at most {MAX_PER_OWNER} intercepts on a workload")]
    TooManyOfOwner,
    /// Its regexes exceed [`COMPILE_BUDGET`].
    #[error(
        ": the regexes of all intercepts here are larger than {COMPILE_BUDGET} bytes together, and it is left out first (most intercepts of one owner, youngest)"
    )]
    TooLargeTogether,
    /// The operator does not allow intercepts of all requests.
    #[error(": an intercept of all requests is not allowed here (limits.allow_all)")]
    All,
    /// The operator does not allow this header.
    #[error(
        ".headers[{0}].name: `{1}` is not among the header names allowed here (limits.header_names)"
    )]
    ForbiddenHeader(usize, String),
    /// The operator does not allow baggage conditions.
    #[error(
        ".baggage: the header `baggage` is not among the header names allowed here (limits.header_names)"
    )]
    ForbiddenBaggage,
}

/// Why no request can meet a condition on a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsatisfiable {
    /// An empty regex, as an unset shell variable yields.
    #[error("is empty, expected a regex (`^$` for an empty value)")]
    Empty,
    /// HTTP removes blanks at both ends of a value.
    #[error("begins or ends with a blank, which no header's value does")]
    Blank,
    /// Plain text with a control character.
    #[error("has a control character, which no header's value has")]
    Control,
    /// Two different plain texts for one name.
    #[error("excludes that of an earlier condition on this name, `{0}`")]
    Excluded(String),
}

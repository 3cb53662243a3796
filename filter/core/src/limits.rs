//! Validates an entry: the form of its fields, and the operator's limits.
//!
//! Knows nothing of requests.

use crate::config::{Intercept, Limits, MatchPath};
use crate::invalid::{CLUSTER_PREFIX, InvalidIntercept, MAX_CONDITIONS, Unsatisfiable};
use crate::path::PathPattern;
use crate::pattern::{Pattern, literal};
use crate::request::header_key;
use crate::target;

/// Header names that no condition may use.
///
/// Our own, and hop-by-hop headers (RFC 9110 section 7.6.1).
///
/// With a condition on our own headers, clients would have to send them.
const RESERVED: [&str; 15] = [
    "x-intercept",
    "x-intercept-address",
    "x-intercept-cluster",
    "x-intercept-error",
    "x-intercept-lost",
    "x-intercept-served-by",
    "x-intercept-unavailable",
    "x-intercept-via",
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The tolerated clock difference between two nodes, in seconds.
///
/// With a larger one, the longest lease looks too long.
const CLOCK_SKEW: u64 = 60;

/// Does a lease that expires then exceed `longest` seconds? Such an entry matches no request.
///
/// `expires` and `now` are in seconds since the epoch. Checks the remaining time, not `created`: a renewal changes only `expires`, and any user can write `created`.
pub fn is_lease_too_long(expires: u64, now: u64, longest: u64) -> bool {
    expires.saturating_sub(now) > longest.saturating_add(CLOCK_SKEW)
}

/// Validates an entry as the filter does, without its lease.
///
/// The lease depends on the time, and is checked with every match.
pub fn validate(
    name: &str,
    intercept: &Intercept,
    limits: &Limits,
) -> Result<(), InvalidIntercept> {
    compile(name, intercept, limits).map(drop)
}

/// The compiled conditions of an intercept.
pub(crate) struct Patterns {
    pub(crate) headers: Vec<Pattern>,
    pub(crate) baggage: Vec<Pattern>,
    pub(crate) path: Option<PathPattern>,
}

/// Validates and compiles an entry.
pub(crate) fn compile(
    name: &str,
    intercept: &Intercept,
    limits: &Limits,
) -> Result<Patterns, InvalidIntercept> {
    fields(name, intercept)?;
    let patterns = conditions(intercept)?;
    allowed(intercept, limits)?;
    Ok(patterns)
}

fn fields(name: &str, intercept: &Intercept) -> Result<(), InvalidIntercept> {
    let cluster = &intercept.cluster;
    if !is_label(name) {
        return Err(InvalidIntercept::Name);
    }
    if intercept.port == 0 {
        return Err(InvalidIntercept::Port);
    }
    if !cluster.starts_with(CLUSTER_PREFIX) || !cluster.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(InvalidIntercept::Cluster);
    }
    if intercept.address.len() != 32
        || !intercept
            .address
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(InvalidIntercept::Address);
    }
    Ok(())
}

fn conditions(intercept: &Intercept) -> Result<Patterns, InvalidIntercept> {
    let count = intercept
        .headers
        .len()
        .saturating_add(intercept.baggage.len());
    if count > MAX_CONDITIONS {
        return Err(InvalidIntercept::Conditions(count));
    }
    let mut patterns = Patterns {
        headers: Vec::with_capacity(intercept.headers.len()),
        baggage: Vec::with_capacity(intercept.baggage.len()),
        path: None,
    };
    let mut texts = Texts::default();
    for (index, header) in intercept.headers.iter().enumerate() {
        let name = &header.name;
        if !is_token(name.strip_prefix(':').unwrap_or(name)) {
            return Err(InvalidIntercept::HeaderName(index, name.clone()));
        }
        if RESERVED
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
        {
            return Err(InvalidIntercept::ReservedHeader(index, name.clone()));
        }
        let pattern = Pattern::value(&header.value)
            .map_err(|error| InvalidIntercept::HeaderValue(index, error))?;
        patterns.headers.push(pattern);
        fits_header(&header.value)
            .and_then(|()| texts.add(header_key(name), &header.value))
            .map_err(|why| InvalidIntercept::UnmetHeader(index, why))?;
    }
    let mut texts = Texts::default();
    for (index, baggage) in intercept.baggage.iter().enumerate() {
        if !is_token(&baggage.key) {
            return Err(InvalidIntercept::BaggageKey(index, baggage.key.clone()));
        }
        let pattern = Pattern::value(&baggage.value)
            .map_err(|error| InvalidIntercept::BaggageValue(index, error))?;
        patterns.baggage.push(pattern);
        texts
            .add(baggage.key.clone(), &baggage.value)
            .map_err(|why| InvalidIntercept::UnmetBaggage(index, why))?;
    }
    if let Some(MatchPath::Equal(path) | MatchPath::Prefix(path)) = &intercept.path {
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(InvalidIntercept::Path(path.clone()));
        }
        if !target::carries_path(path.as_bytes()) {
            return Err(InvalidIntercept::PathCharacter(path.clone()));
        }
    }
    let path = intercept.path.as_ref().map(PathPattern::new).transpose();
    patterns.path = path.map_err(InvalidIntercept::PathRegex)?;
    Ok(patterns)
}

/// The plain texts among the conditions of one intercept, by the name that they are compared with.
#[derive(Default)]
struct Texts(Vec<(String, String)>);

impl Texts {
    fn add(&mut self, key: String, value: &str) -> Result<(), Unsatisfiable> {
        if value.is_empty() {
            return Err(Unsatisfiable::Empty);
        }
        let Some(text) = literal(value) else {
            return Ok(());
        };
        let earlier = self.0.iter().find(|(known, _)| *known == key);
        match earlier {
            Some((_, earlier)) if *earlier != text => Err(Unsatisfiable::Excluded(earlier.clone())),
            Some(_) => Ok(()),
            None => {
                self.0.push((key, text));
                Ok(())
            }
        }
    }
}

/// Can a header have a value that matches this pattern?
///
/// Baggage has no such rule, because its values are percent-decoded.
fn fits_header(value: &str) -> Result<(), Unsatisfiable> {
    const BLANKS: [char; 2] = [' ', '\t'];
    let is_control = |char: char| char.is_ascii_control() && char != '\t';
    if literal(value).is_some_and(|text| text.contains(is_control)) {
        return Err(Unsatisfiable::Control);
    }
    // Other branches of an alternation may lack the blank, and so may a repetition of it.
    let is_optional = |rest: &str| rest.starts_with(['?', '*', '{']);
    let is_blank = value.ends_with(BLANKS)
        || value
            .strip_prefix(BLANKS)
            .is_some_and(|rest| !is_optional(rest));
    match is_blank && !value.contains('|') {
        true => Err(Unsatisfiable::Blank),
        false => Ok(()),
    }
}

fn allowed(intercept: &Intercept, limits: &Limits) -> Result<(), InvalidIntercept> {
    if !limits.allow_all && intercept.headers.is_empty() && intercept.baggage.is_empty() {
        return Err(InvalidIntercept::All);
    }
    let Some(names) = &limits.header_names else {
        return Ok(());
    };
    let is_allowed = |wanted: &str| {
        let wanted = header_key(wanted);
        names.iter().any(|name| header_key(name) == wanted)
    };
    if let Some((index, header)) = intercept
        .headers
        .iter()
        .enumerate()
        .find(|(_, header)| !is_allowed(&header.name))
    {
        return Err(InvalidIntercept::ForbiddenHeader(
            index,
            header.name.clone(),
        ));
    }
    if !intercept.baggage.is_empty() && !is_allowed("baggage") {
        return Err(InvalidIntercept::ForbiddenBaggage);
    }
    Ok(())
}

/// Is it a lower-case RFC 1123 label?
///
/// The name becomes part of a header value, a cluster name and a Kubernetes object.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Is it a token (RFC 9110 section 5.6.2)?
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

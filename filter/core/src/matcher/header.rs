//! A header condition: which texts of a header's value are tried.

use crate::pattern::{Pattern, TEXT_LIMIT};

/// Does any of the header's values match? A header longer than [`TEXT_LIMIT`] as a whole can still equal an exact value, but is tried against no regex:
/// so one header costs one regex at most two passes over that many bytes.
pub(crate) fn matches(pattern: &Pattern, joined: &[u8]) -> bool {
    match pattern {
        Pattern::Regex(_) if joined.len() > TEXT_LIMIT => false,
        pattern => values(joined).any(|value| pattern.matches(value)),
    }
}

/// The whole value, then each member of it as a list (RFC 9110 section 5.6.1: empty members do not count).
pub(crate) fn values(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_list = joined.contains(&b',');
    let members = joined
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(move |member| is_list && !member.is_empty());
    std::iter::once(joined).chain(members)
}

/// Without the optional white space of RFC 9110 section 5.6.3 around it.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

//! Header conditions: which parts of a header's value are tried.

use crate::budget::Fuel;
use crate::pattern::{Budgeted, Pattern};

/// Does the whole value match, or any member of it as a list?
///
/// A header costs a regex at most two passes over [`TEXT_LIMIT`](crate::pattern::TEXT_LIMIT) bytes.
pub(crate) fn matches(pattern: &Pattern, joined: &[u8], fuel: &Fuel) -> bool {
    let mut budgeted = Budgeted::new(pattern, fuel);
    pattern.matches_within(joined, fuel) || members(joined).any(|member| budgeted.matches(member))
}

/// The whole value, then each of its members.
pub(crate) fn values(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::once(joined).chain(members(joined))
}

/// Is this text a member of the list?
pub(crate) fn has_member(joined: &[u8], member: &str) -> bool {
    joined
        .split(|byte| *byte == b',')
        .any(|found| trim(found) == member.as_bytes())
}

/// The non-empty members of a list (RFC 9110 section 5.6.1); none for a value without a comma.
fn members(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_list = joined.contains(&b',');
    joined
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(move |member| is_list && !member.is_empty())
}

/// Removes the optional white space of RFC 9110 section 5.6.3.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

//! Conditions on members of the W3C `baggage` header (<https://www.w3.org/TR/baggage/>, 3.2).

use std::borrow::Cow;

use super::header::trim;
use crate::budget::Fuel;
use crate::pattern::{Budgeted, Pattern};

/// Does any member with this key match?
pub(crate) fn matches(key: &str, pattern: &Pattern, joined: &[u8], fuel: &Fuel) -> bool {
    let mut budgeted = Budgeted::new(pattern, fuel);
    members(joined).any(|(member, value)| member == key.as_bytes() && budgeted.matches(&value))
}

/// Keys and percent-decoded values without properties. Skips members that are not `key=value`.
pub(crate) fn members(joined: &[u8]) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    joined.split(|byte| *byte == b',').filter_map(|member| {
        let mut parts = member.splitn(2, |byte| *byte == b'=');
        let (key, rest) = (parts.next()?, parts.next()?);
        let value = rest.split(|byte| *byte == b';').next()?;
        Some((trim(key), percent_decode(trim(value))))
    })
}

/// Percent-decodes a text (RFC 3986 section 2.1).
///
/// A `%` without two hexadecimal digits after it stands for itself.
fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [b'%', high, low, after @ ..] if let Some(byte) = hex(*high, *low) => {
                decoded.push(byte);
                after
            }
            [byte, after @ ..] => {
                decoded.push(*byte);
                after
            }
            [] => return Cow::Owned(decoded),
        };
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

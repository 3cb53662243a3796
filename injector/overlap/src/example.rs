//! Assembles an example request from the words found for its parts.

use std::collections::BTreeMap;

use super::automaton::Common;
use super::rule::Key;

/// An example request, as a user would type it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleRequest {
    /// `GET` unless a condition on `:method` says otherwise.
    pub method: String,
    /// The request target: the path, with a query string only if a condition on `:path` needs one.
    pub path: String,
    /// Names and values, spelled as in the conditions.
    ///
    /// Among the pseudo-headers only `:authority` can be in it (a client sends it as `host`): `:method` and `:path` are in [`method`](Self::method) and [`path`](Self::path).
    /// All baggage is in one `baggage` header, percent-encoded.
    pub headers: Vec<(String, String)>,
}

/// The search result for one key.
pub(super) struct Found<'i> {
    pub(super) spelled: &'i str,
    pub(super) common: Common,
}

/// Assembles the request; `None` if one of the parts is unknown.
pub(super) fn assemble(values: BTreeMap<&Key, Found>, target: Common) -> Option<ExampleRequest> {
    let mut request = ExampleRequest {
        method: "GET".to_owned(),
        path: word(target)?,
        headers: Vec::new(),
    };
    let mut members = Vec::new();
    for (key, found) in values {
        let value = word(found.common)?;
        match key {
            Key::Header(name) if name == ":method" => request.method = value,
            Key::Header(_) => request.headers.push((found.spelled.to_owned(), value)),
            Key::Baggage(key) => members.push(format!("{key}={}", percent_encode(&value))),
        }
    }
    if !members.is_empty() {
        request
            .headers
            .push(("baggage".to_owned(), members.join(",")));
    }
    Some(request)
}

fn word(common: Common) -> Option<String> {
    match common {
        Common::Word(word) => Some(word),
        Common::Nothing | Common::Unknown => None,
    }
}

/// Percent-encodes bytes that are no baggage-octet, and `%` itself (W3C Baggage section 3.3.1.3).
fn percent_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && !b"\",;\\%".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

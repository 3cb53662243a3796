//! Which headers make a request one of an intercept's, so that they can be added to the requests of its command.

use intercept_core::pattern::literal;
use intercept_outbound::Mark;

use crate::model::Plan;

/// What is never added: it belongs to the request that has it.
const NEVER: [&str; 3] = ["host", "content-length", "expect"];

/// What is added to requests so that they meet the plan's conditions on headers and baggage; `None` where a condition is not one value, or there is none.
pub fn mark(plan: &Plan) -> Option<Mark> {
    let headers = plan.headers.iter().map(|condition| {
        let name = condition.name.as_str();
        let is_addable =
            !name.starts_with(':') && NEVER.iter().all(|never| !name.eq_ignore_ascii_case(never));
        let value = literal(&condition.value).filter(|value| is_header_value(value));
        value
            .filter(|_| is_addable)
            .map(|value| (name.to_owned(), value))
    });
    let baggage = plan.baggage.iter().map(|condition| {
        let value = literal(&condition.value).filter(|value| value.bytes().all(is_baggage_octet));
        value.map(|value| (condition.key.clone(), value))
    });
    let mark = Mark {
        headers: headers.collect::<Option<_>>()?,
        baggage: baggage.collect::<Option<_>>()?,
    };
    let is_empty = mark.headers.is_empty() && mark.baggage.is_empty();
    (!is_empty).then_some(mark)
}

/// `Coder: Bob, baggage: dev=bob`.
pub fn in_words(mark: &Mark) -> String {
    let headers = mark.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {value}"));
    let baggage = mark.baggage.iter();
    let baggage = baggage.map(|(key, value)| format!("baggage: {key}={value}"));
    headers.chain(baggage).collect::<Vec<_>>().join(", ")
}

fn is_header_value(value: &str) -> bool {
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    !value.is_empty() && value.trim() == value && value.bytes().all(is_visible)
}

/// <https://www.w3.org/TR/baggage/>, section 3.2.1.3, without `%`, which begins an escape.
fn is_baggage_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\%".contains(&byte)
}

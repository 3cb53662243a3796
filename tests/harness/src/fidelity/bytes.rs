//! Every byte value at every position of a request, in both HTTP versions.
//!
//! Envoy rejects most of them, which must be the same matched and unmatched.

use super::case::{Case, Part, fields};
use super::message::Fields;

/// Positions of the byte.
const PLACES: [&str; 5] = ["path", "query", "name", "value", "method"];

/// 256 cases for each position and version.
pub fn cases() -> Vec<Case> {
    let bytes = || 0..=u8::MAX;
    let http1 = PLACES
        .iter()
        .flat_map(|place| bytes().map(|byte| http1(place, byte)));
    let http2 = PLACES
        .iter()
        .flat_map(|place| bytes().map(|byte| http2(place, byte)));
    http1.chain(http2).collect()
}

fn title(place: &str, byte: u8) -> String {
    format!("byte {byte:#04x} in the {place}")
}

/// `text` with the byte in place of `@`.
fn with(text: &str, byte: u8) -> Vec<u8> {
    let bytes = text.bytes();
    bytes
        .map(|other| if other == b'@' { byte } else { other })
        .collect()
}

fn http1(place: &str, byte: u8) -> Case {
    let (first, line) = match place {
        "path" => ("GET /a@b HTTP/1.1", "x-plain: value"),
        "query" => ("GET /a?b=@c HTTP/1.1", "x-plain: value"),
        "name" => ("GET /a HTTP/1.1", "x-a@b: value"),
        "value" => ("GET /a HTTP/1.1", "x-plain: a@b"),
        _ => ("PUR@GE /a HTTP/1.1", "x-plain: value"),
    };
    let parts = [
        &with(first, byte)[..],
        b"\r\n{case}\r\nhost: orders\r\n",
        &with(line, byte)[..],
        b"\r\n\r\n",
    ];
    Case::http1(title(place, byte), parts.concat())
}

fn http2(place: &str, byte: u8) -> Case {
    let mut head: Fields = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/a"),
        ("x-plain", "value"),
    ]);
    match place {
        "path" => head[3].1 = with("/a@b", byte),
        "query" => head[3].1 = with("/a?b=@c", byte),
        "name" => head[4].0 = with("x-a@b", byte),
        "value" => head[4].1 = with("a@b", byte),
        _ => head[0].1 = with("PUR@GE", byte),
    }
    Case::http2(title(place, byte), vec![Part::Head(head, true)])
}

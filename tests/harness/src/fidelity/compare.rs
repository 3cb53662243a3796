//! Compares two messages. Owns what counts as a difference; tests decide which ones are acceptable.

use std::collections::BTreeMap;
use std::fmt;

use super::message::{End, Fields, Message, Version};

/// Fields that Envoy writes from a clock.
const CLOCKS: [&[u8]; 2] = [b"date", b"x-envoy-upstream-service-time"];

/// Prefix for names of trailers.
const TRAILER: &[u8] = b"trailer ";

/// The end at which two messages differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The request, as the origin received it.
    Request,
    /// The response, as the client received it.
    Response,
}

/// The kind of difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The in-cluster version got the matched request.
    LeftToCluster,
    /// The number of messages.
    Count,
    /// The HTTP version. Everything else was then compared in terms of HTTP/2.
    Version,
    /// Interim responses.
    Interim,
    /// The first line.
    Start,
    /// A field of the matched message only.
    Added(String),
    /// A field of the unmatched message only.
    Missing(String),
    /// The values of a field.
    Values(String),
    /// The order of fields with different names.
    Order,
    /// The body.
    Body,
    /// Chunk extensions.
    Extensions,
    /// The end of the message.
    End,
    /// Bytes after the last response.
    Extra,
    /// Envoy had to respond itself, because the application's response was invalid.
    NoAnswer,
}

/// One difference between the unmatched and the matched run of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// The end at which they differ.
    pub side: Side,
    /// The kind of difference.
    pub what: What,
    /// Both values.
    pub text: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { side, what, text } = self;
        write!(f, "{side:?} {what:?}: {text}")
    }
}

/// The differences between the messages of the unmatched and the matched run.
pub fn compare(side: Side, direct: &Message, matched: &Message) -> Vec<Deviation> {
    let mut found = Vec::new();
    let mut note = |what, direct: String, matched: String| {
        if direct != matched {
            let text = format!("{direct} → {matched}");
            found.push(Deviation { side, what, text });
        }
    };
    let (direct, matched) = if direct.version == matched.version {
        (direct.clone(), matched.clone())
    } else {
        let version = |message: &Message| format!("{:?}", message.version);
        note(What::Version, version(direct), version(matched));
        (direct.neutral(), matched.neutral())
    };
    note(What::Interim, interim(&direct), interim(&matched));
    note(What::Start, show(&direct.start), show(&matched.start));
    let (ours, theirs) = (with_trailers(&direct), with_trailers(&matched));
    for (name, values) in &ours {
        match theirs.get(name) {
            Some(others) => {
                let (one, other) = comparable(name, values, others);
                note(What::Values(show(name)), one, other);
            }
            None => note(
                What::Missing(show(name)),
                format!("{values:?}"),
                "nothing".to_owned(),
            ),
        }
    }
    for (name, values) in theirs.iter().filter(|(name, _)| !ours.contains_key(*name)) {
        note(
            What::Added(show(name)),
            "nothing".to_owned(),
            format!("{values:?}"),
        );
    }
    note(What::Order, order(&direct, &theirs), order(&matched, &ours));
    note(What::Body, brief(&direct.body), brief(&matched.body));
    note(
        What::Extensions,
        show(&direct.extensions),
        show(&matched.extensions),
    );
    note(What::End, end(&direct), end(&matched));
    found
}

/// Fields and trailers, the latter with a prefix.
fn with_trailers(message: &Message) -> BTreeMap<Vec<u8>, Vec<String>> {
    let trailers = message.trailers.iter();
    let trailers = trailers.map(|(name, value)| ([TRAILER, name].concat(), value.clone()));
    by_name(&message.fields.iter().cloned().chain(trailers).collect())
}

/// The end of a message. Counts a reset as a close, because timing decides which one is seen.
fn end(message: &Message) -> String {
    let end = match message.end {
        End::ConnectionReset => End::Closed,
        end => end,
    };
    format!("{end:?}")
}

fn by_name(fields: &Fields) -> BTreeMap<Vec<u8>, Vec<String>> {
    let mut by_name: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for (name, value) in fields {
        by_name.entry(name.clone()).or_default().push(show(value));
    }
    by_name
}

/// Values to compare. Two clocks always differ, so their fields are compared by form only.
fn comparable(name: &[u8], one: &[String], other: &[String]) -> (String, String) {
    let is_clock = |values: &[String]| match values {
        [value] => value.ends_with(" GMT") || value.trim().parse::<u64>().is_ok(),
        _ => false,
    };
    if CLOCKS.contains(&name) && is_clock(one) && is_clock(other) {
        return (String::new(), String::new());
    }
    (format!("{one:?}"), format!("{other:?}"))
}

/// The names that both messages have, in order of first appearance.
fn order(message: &Message, others: &BTreeMap<Vec<u8>, Vec<String>>) -> String {
    let mut names: Vec<&[u8]> = Vec::new();
    for (name, _) in &message.fields {
        // In HTTP/2 the order of pseudo-headers has no meaning (RFC 9113 section 8.3).
        let is_pseudo = message.version == Version::Http2 && name.starts_with(b":");
        if !is_pseudo && others.contains_key(name) && !names.contains(&name.as_slice()) {
            names.push(name);
        }
    }
    show(&names.join(&b", "[..]))
}

fn interim(message: &Message) -> String {
    let interim = message.interim.iter();
    let text = interim.map(|(start, fields)| {
        let lines = fields.iter();
        let lines = lines.filter(|(name, _)| !CLOCKS.contains(&name.as_slice()));
        let lines = lines.map(|(name, value)| format!("{}:{}", show(name), show(value)));
        format!("{} {}", show(start), lines.collect::<Vec<_>>().join(", "))
    });
    text.collect::<Vec<_>>().join("; ")
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A summary that is equal exactly if the bodies are.
fn brief(body: &[u8]) -> String {
    let start = show(&body[..body.len().min(60)]);
    let sum = crate::app::sha256(body);
    format!("{} bytes {start:?} ({})", body.len(), &sum[..16])
}

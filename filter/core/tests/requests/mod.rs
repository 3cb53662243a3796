//! One-line notations for intercepts and requests, shared by the tests in this directory.
#![allow(dead_code, reason = "every test file is a crate of its own")]

use intercept_core::{
    Config, Document, Intercept, Limits, MatchBaggage, MatchHeader, MatchPath, Matcher, Request,
    SCHEMA_VERSION,
};

/// The time of every request, in seconds since the epoch.
pub const NOW: u64 = 1_000_000;

/// A request as a table, to port 8080 at [`NOW`] by default.
#[derive(Debug, Clone)]
pub struct Table {
    pub headers: Vec<(String, Vec<u8>)>,
    pub port: u16,
    pub now: u64,
}

impl Request for Table {
    /// Lines of the same name are joined by a comma, as Envoy joins them.
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        assert_eq!(name, name.to_ascii_lowercase(), "asked for in lower case");
        let lines: Vec<_> = self
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .collect();
        (!lines.is_empty()).then(|| lines.join(&b','))
    }

    fn is_port(&self, port: u16) -> bool {
        self.port == port
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// Parses `Name: value` lines; a missing `:path` is `/`.
pub fn request(lines: &[&str]) -> Table {
    let mut headers: Vec<_> = lines
        .iter()
        .map(|line| {
            let (name, value) = line.split_once(": ").expect("`name: value`");
            (name.to_ascii_lowercase(), value.as_bytes().to_vec())
        })
        .collect();
    if !headers.iter().any(|(name, _)| name == ":path") {
        headers.push((":path".to_owned(), b"/".to_vec()));
    }
    Table {
        headers,
        port: 8080,
        now: NOW,
    }
}

/// A request with one header of arbitrary bytes.
pub fn with_bytes(name: &str, value: &[u8]) -> Table {
    let mut table = request(&[]);
    table.headers.push((name.to_owned(), value.to_vec()));
    table
}

/// Parses conditions in a short notation.
///
/// `Name=regex` is a header, `@key=regex` a baggage member, `equal /x`, `prefix /x` and `regex x` a path.
pub fn intercept(conditions: &[&str]) -> Intercept {
    let mut intercept = Intercept {
        port: 8080,
        cluster: "intercept|x".to_owned(),
        address: "0123456789abcdef0123456789abcdef".to_owned(),
        owner: "bob@example.com".to_owned(),
        created: 0,
        headers: Vec::new(),
        baggage: Vec::new(),
        path: None,
        expires: NOW + 60,
    };
    for condition in conditions {
        match condition.split_once(' ') {
            Some(("equal", path)) => intercept.path = Some(MatchPath::Equal(path.to_owned())),
            Some(("prefix", path)) => intercept.path = Some(MatchPath::Prefix(path.to_owned())),
            Some(("regex", path)) => intercept.path = Some(MatchPath::Regex(path.to_owned())),
            _ => add_value(&mut intercept, condition),
        }
    }
    intercept
}

fn add_value(intercept: &mut Intercept, condition: &str) {
    let (name, value) = condition.split_once('=').expect("`name=value`");
    let value = value.to_owned();
    match name.strip_prefix('@') {
        Some(key) => intercept.baggage.push(MatchBaggage {
            key: key.to_owned(),
            value,
        }),
        None => intercept.headers.push(MatchHeader {
            name: name.to_owned(),
            value,
        }),
    }
}

/// Limits that forbid nothing.
pub fn unlimited() -> Limits {
    Limits {
        allow_all: true,
        ..Limits::default()
    }
}

/// Compiles entries, which must all be valid.
#[track_caller]
pub fn compile(limits: Limits, intercepts: &[(&str, Intercept)]) -> Matcher {
    let intercepts = intercepts
        .iter()
        .map(|(name, intercept)| ((*name).to_owned(), intercept.clone()))
        .collect();
    let (matcher, rejected) = Matcher::compile(Config {
        limits,
        intercepts,
        ..Config::default()
    });
    assert_eq!(rejected, []);
    matcher
}

/// The intercept that takes the request. Panics unless `explain` agrees.
#[track_caller]
pub fn winner<'m>(matcher: &'m Matcher, request: &Table) -> Option<&'m str> {
    let decided = matcher.decide(request).intercept.map(|one| one.name());
    let explained = matcher
        .explain(request)
        .into_iter()
        .find(|one| one.verdict == intercept_core::Verdict::Wins)
        .map(|one| one.intercept);
    assert_eq!(decided, explained, "decide and explain differ");
    decided
}

/// Does an intercept with these conditions match the request, including a bypass?
#[track_caller]
pub fn matches(conditions: &[&str], request: &Table) -> bool {
    let matcher = compile(unlimited(), &[("bob", intercept(conditions))]);
    winner(&matcher, request).is_some() || matcher.decide(request).bypass.is_some()
}

/// The document as the CLI writes it.
pub fn json(limits: Limits, intercepts: &[(&str, Intercept)]) -> Vec<u8> {
    let document = Document {
        version: SCHEMA_VERSION,
        limits,
        intercepts: intercepts
            .iter()
            .map(|(name, intercept)| ((*name).to_owned(), intercept.clone()))
            .collect(),
    };
    serde_json::to_vec(&document).expect("a document is JSON")
}

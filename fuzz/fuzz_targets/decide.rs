//! Structured intercepts against a structured request.
//!
//! `decide` and `explain` agree, and nothing panics.
#![no_main]

use arbitrary::Arbitrary;
use intercept_core::{
    Config, Intercept, Limits, MatchBaggage, MatchHeader, MatchPath, Matcher, Request, Verdict,
};
use libfuzzer_sys::fuzz_target;

/// Few names, so that conditions and headers often share one.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Name {
    Coder,
    Team,
    Baggage,
    UserAgent,
    Method,
    Authority,
    Path,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Coder => "coder",
            Self::Team => "team",
            Self::Baggage => "baggage",
            Self::UserAgent => "user-agent",
            Self::Method => ":method",
            Self::Authority => ":authority",
            Self::Path => ":path",
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Path<'a> {
    None,
    Equal(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

#[derive(Debug, Arbitrary)]
struct Rule<'a> {
    headers: Vec<(Name, &'a str)>,
    baggage: Vec<(bool, &'a str)>,
    path: Path<'a>,
    port: bool,
    expires: u8,
}

impl Rule<'_> {
    fn intercept(&self) -> Intercept {
        let header = |(name, value): &(Name, &str)| MatchHeader {
            name: name.as_str().to_owned(),
            value: (*value).to_owned(),
        };
        let member = |(first, value): &(bool, &str)| MatchBaggage {
            key: if *first { "k" } else { "l" }.to_owned(),
            value: (*value).to_owned(),
        };
        Intercept {
            port: if self.port { 8080 } else { 9090 },
            cluster: "intercept|x".to_owned(),
            address: "0".repeat(32),
            owner: String::new(),
            created: 0,
            headers: self.headers.iter().map(header).collect(),
            baggage: self.baggage.iter().map(member).collect(),
            path: match self.path {
                Path::None => None,
                Path::Equal(text) => Some(MatchPath::Equal(format!("/{text}"))),
                Path::Prefix(text) => Some(MatchPath::Prefix(format!("/{text}"))),
                Path::Regex(pattern) => Some(MatchPath::Regex(pattern.to_owned())),
            },
            expires: self.expires.into(),
        }
    }
}

#[derive(Debug, Arbitrary)]
struct Table<'a> {
    headers: Vec<(Name, &'a [u8])>,
}

impl Request for Table<'_> {
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        let lines: Vec<_> = self
            .headers
            .iter()
            .filter(|(known, _)| known.as_str() == name)
            .map(|(_, value)| *value)
            .collect();
        (!lines.is_empty()).then(|| lines.join(&b','))
    }

    fn is_port(&self, port: u16) -> bool {
        port == 8080
    }

    fn now(&self) -> u64 {
        100
    }
}

fuzz_target!(|input: (Vec<Rule>, Table)| {
    let (rules, request) = input;
    let limits = Limits {
        allow_all: true,
        max_lease_seconds: 50,
        header_names: None,
    };
    let intercepts = rules
        .iter()
        .enumerate()
        .map(|(n, rule)| (format!("dev-{n}"), rule.intercept()))
        .collect();
    let (matcher, _) = Matcher::compile(Config { limits, intercepts, hash: 0 });
    let decided = matcher.decide(&request).intercept.map(|one| one.name());
    let explained = matcher.explain(&request);
    let wins = explained.iter().find(|one| one.verdict == Verdict::Wins);
    assert_eq!(decided, wins.map(|one| one.intercept));
});

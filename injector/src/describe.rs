//! An intercept told to people: its conditions, its times. Decides nothing.

use std::time::Duration;

use intercept_core::pattern::{self, Pattern};
use intercept_core::{Intercept, MatchBaggage, MatchHeader, MatchPath, header_key};

/// All conditions in a sentence without a full stop: `header Coder is Bob, path begins with /api`.
pub fn conditions(intercept: &Intercept) -> String {
    let headers = intercept
        .headers
        .iter()
        .map(|header| format!("header {} {}", header.name, value(&header.value)));
    let baggage = intercept
        .baggage
        .iter()
        .map(|member| format!("baggage {} {}", member.key, value(&member.value)));
    let path = intercept.path.iter().map(|path| match path {
        MatchPath::Equal(text) => format!("path is {text}"),
        MatchPath::Prefix(text) => format!("path begins with {text}"),
        MatchPath::Regex(text) => format!("path matches {text}"),
    });
    let words: Vec<String> = headers.chain(baggage).chain(path).collect();
    if words.is_empty() {
        return "every request".to_owned();
    }
    words.join(", ")
}

fn value(regex: &str) -> String {
    match pattern::literal(regex) {
        Some(text) if text.is_empty() => "is empty".to_owned(),
        Some(text) => format!("is {text}"),
        None => format!("matches {regex}"),
    }
}

/// Headers that every request bears when the filter sees it: the pseudo-headers, and what clients or Envoy always add. Not a complete list: it is for a warning.
const ALWAYS_THERE: [&str; 8] = [
    ":authority",
    ":method",
    ":path",
    ":scheme",
    "host",
    "user-agent",
    "x-forwarded-proto",
    "x-request-id",
];

/// Values that have nothing in common but being some; a pattern that takes all of them asks for none.
const UNLIKE: [&str; 4] = ["/", "q", "Zz9~", "4 (x; y=\"1\")/-_.:"];

/// Is all traffic taken, whatever the path? By no header and baggage conditions at all, or by such as every request meets (`user-agent=.*`).
pub fn takes_everybody(headers: &[MatchHeader], baggage: &[MatchBaggage]) -> bool {
    baggage.is_empty() && headers.iter().all(asks_for_nothing)
}

fn asks_for_nothing(header: &MatchHeader) -> bool {
    let name = header_key(&header.name);
    let Ok(pattern) = Pattern::value(&header.value) else {
        return false;
    };
    // Every target begins with a slash, so `/.*` takes all of them.
    let prefix = if name == ":path" { "/" } else { "" };
    ALWAYS_THERE.contains(&name.as_str())
        && UNLIKE
            .iter()
            .all(|value| pattern.matches(format!("{prefix}{value}").as_bytes()))
}

/// `1 request`, `2 requests`.
pub fn count(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// `59 min`, `1 h 05 min`, `42 s`: the two largest units.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) if minutes < 10 => format!("{minutes} min {seconds:02} s"),
        (0, minutes, _) => format!("{minutes} min"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// What is left of a lease; `over` where nothing is.
pub fn lease_left(expires: u64, now: u64) -> String {
    match expires.checked_sub(now) {
        None | Some(0) => "over".to_owned(),
        Some(left) => span(Duration::from_secs(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_every_request_meets_takes_everybody() {
        for (conditions, expected) in [
            (&[][..], true),
            (&[("user-agent", ".*")], true),
            (&[("User-Agent", ".+")], true),
            (&[(":path", "/.*")], true),
            (&[(":method", "[^ ]*.*"), ("host", "(.*)")], true),
            (&[(":method", ".*"), ("coder", "Bob")], false),
            (&[("coder", ".*")], false),
            (&[("user-agent", "curl/.*")], false),
            (&[(":path", "/api/.*")], false),
            (&[(":method", "GET|POST")], false),
            (&[("user-agent", "(")], false),
        ] {
            let headers: Vec<_> = conditions
                .iter()
                .map(|(name, value)| MatchHeader {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect();
            assert_eq!(takes_everybody(&headers, &[]), expected, "{conditions:?}");
        }
        let member = MatchBaggage {
            key: "dev".to_owned(),
            value: "bob".to_owned(),
        };
        assert!(!takes_everybody(&[], &[member]));
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 01 s"),
            (3599, "59 min"),
            (3600, "1 h"),
            (3900, "1 h 05 min"),
            (86_400, "24 h"),
        ];
        for (seconds, words) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn a_lease_that_has_just_ended_is_over() {
        assert_eq!(lease_left(100, 100), "over");
        assert_eq!(lease_left(100, 99), "1 s");
    }
}

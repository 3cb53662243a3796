//! An intercept told to people: its conditions, its times. Decides nothing.

use std::time::Duration;

use intercept_core::{Intercept, MatchPath, pattern};

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

/// Is everybody's traffic taken, whatever the path?
pub fn takes_everybody(intercept: &Intercept) -> bool {
    intercept.headers.is_empty() && intercept.baggage.is_empty()
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

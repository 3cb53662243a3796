//! How the regexes of an intercept are read: literals apart, everything else by `regex-lite`, always as a whole.

use regex_lite::{Regex, RegexBuilder};

/// The largest compiled regex, in bytes. Ordinary patterns need less than 7 KiB for five of them; `(.{0,100}){100}` would need megabytes and seconds.
pub const SIZE_LIMIT: usize = 8 << 10;

/// The longest regex as it is written, in bytes; plain text has no limit. Hardly anything longer compiles to [`SIZE_LIMIT`], and it is refused unread: a parser's time grows with the text,
/// in places with its square, and Envoy's threads wait meanwhile.
pub const PATTERN_LIMIT: usize = 8 << 10;

/// The longest text that is tried against a regex, in bytes. A longer value can still equal an exact one.
pub const TEXT_LIMIT: usize = 4 << 10;

/// The deepest nesting of groups in a pattern.
const NEST_LIMIT: u32 = 50;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// So many bytes, which is more than [`PATTERN_LIMIT`].
    #[error("a regex of {0} bytes, expected at most {PATTERN_LIMIT}")]
    TooLong(usize),
    /// What regex-lite says of it. It gives no position; the CLI adds one where it can.
    #[error("{0}")]
    Syntax(String),
    /// With it, white space and comments inside the pattern would be dropped.
    #[error("the flag `x` is not supported")]
    ExtendedFlag,
}

/// What a value must be: one text, or anything that a regex matches entirely.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The value equals this text.
    Exact(String),
    /// The regex, anchored at both ends, matches the value.
    Regex(Regex),
}

impl Pattern {
    /// Reads the pattern of a header or baggage value.
    pub fn value(pattern: &str) -> Result<Self, InvalidPattern> {
        match literal(pattern) {
            Some(text) => Ok(Self::Exact(text)),
            None => regex(pattern, &anchored(pattern)).map(Self::Regex),
        }
    }

    /// Does the value match? A value that is not UTF-8 or longer than [`TEXT_LIMIT`] matches no regex.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => is_match(regex, value),
        }
    }

    pub(crate) fn is_regex(&self) -> bool {
        matches!(self, Self::Regex(_))
    }
}

/// A pattern that is tried against one value after another. A regex sees at most [`TEXT_LIMIT`] bytes of them together; what is longer than the rest of that is passed over.
pub(crate) struct Budgeted<'p> {
    pattern: &'p Pattern,
    left: usize,
}

impl<'p> Budgeted<'p> {
    pub(crate) fn new(pattern: &'p Pattern) -> Self {
        Self {
            pattern,
            left: TEXT_LIMIT,
        }
    }

    pub(crate) fn matches(&mut self, value: &[u8]) -> bool {
        if self.pattern.is_regex() {
            let Some(left) = self.left.checked_sub(value.len()) else {
                return false;
            };
            self.left = left;
        }
        self.pattern.matches(value)
    }
}

/// Reads the pattern of a path.
pub fn path(pattern: &str) -> Result<Regex, InvalidPattern> {
    regex(pattern, &anchored_path(pattern))
}

/// The regex that a value's pattern stands for.
pub fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// The regex that a path's pattern stands for: the leading slash may be left out.
pub fn anchored_path(pattern: &str) -> String {
    format!("^/?(?:{pattern})$")
}

/// The one text that a pattern matches, where it is plain text: no operators, and escapes of punctuation only.
pub fn literal(pattern: &str) -> Option<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.push(
                chars
                    .next()
                    .filter(|next| next.is_ascii_punctuation() && !matches!(next, '<' | '>'))?,
            ),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                return None;
            }
            _ => text.push(char),
        }
    }
    Some(text)
}

pub(crate) fn is_match(regex: &Regex, text: &[u8]) -> bool {
    text.len() <= TEXT_LIMIT && str::from_utf8(text).is_ok_and(|text| regex.is_match(text))
}

/// The pattern must be valid by itself (`a)|(?:b` is valid only when wrapped), and it is compiled wrapped.
fn regex(pattern: &str, wrapped: &str) -> Result<Regex, InvalidPattern> {
    if pattern.len() > PATTERN_LIMIT {
        return Err(InvalidPattern::TooLong(pattern.len()));
    }
    if has_extended_flag(pattern) {
        return Err(InvalidPattern::ExtendedFlag);
    }
    compile(pattern)?;
    compile(wrapped)
}

fn compile(pattern: &str) -> Result<Regex, InvalidPattern> {
    RegexBuilder::new(pattern)
        .size_limit(SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|error| InvalidPattern::Syntax(error.to_string()))
}

/// Is there a `(?flags)` or `(?flags:` with an `x` among its flags? Neither `\(?x` nor `[(?x)]` is one.
fn has_extended_flag(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' => drop(rest.next()),
            '[' => rest = after_class(rest.as_str()).chars(),
            '(' if rest.as_str().strip_prefix('?').is_some_and(names_x) => return true,
            _ => {}
        }
    }
    false
}

/// `flags` is what follows `(?`: flags end at `)` or `:`, and a group's name does not. Looks no further than that: it is asked for each `(?`.
fn names_x(flags: &str) -> bool {
    let mut names_x = false;
    for byte in flags.bytes() {
        match byte {
            b')' | b':' => return names_x,
            b'x' => names_x = true,
            b'-' | b'a'..=b'z' | b'A'..=b'Z' => {}
            _ => return false,
        }
    }
    false
}

/// What follows a character class. A `]` that comes first in it stands for itself, and one may belong to `[:name:]`.
fn after_class(class: &str) -> &str {
    let class = class.strip_prefix('^').unwrap_or(class);
    let mut rest = class.strip_prefix(']').unwrap_or(class).chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' => drop(rest.next()),
            '[' => {
                if let Some(after) = rest.as_str().strip_prefix(':').and_then(after_name) {
                    rest = after.chars();
                }
            }
            ']' => break,
            _ => {}
        }
    }
    rest.as_str()
}

/// What follows the `:]` of `[:name:]`. Looks no further than the name.
fn after_name(class: &str) -> Option<&str> {
    let is_end = |byte| !matches!(byte, b'^' | b'a'..=b'z' | b'A'..=b'Z');
    let end = class.bytes().position(is_end)?;
    class.get(end..)?.strip_prefix(":]")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each takes minutes where the rest of the text is looked through at every `(?` or `[:`.
    #[test]
    fn looking_for_an_x_flag_takes_one_pass() {
        for text in ["(?", "(?i", "[:", "[[:a", "[a-"] {
            let pattern = format!("[{}", text.repeat(2_000_000));
            assert!(!has_extended_flag(&pattern), "{text}");
            assert!(!has_extended_flag(&text.repeat(2_000_000)), "{text}");
        }
    }

    #[test]
    fn an_x_flag_is_seen_wherever_it_stands() {
        for pattern in [
            "(?x)a",
            "a(?ix:b)",
            "(?-x)a",
            r"\\(?x)a",
            "[a](?x)b",
            "[]](?x)b",
            "[[:alpha:]](?x)b",
        ] {
            assert!(has_extended_flag(pattern), "{pattern}");
        }
    }

    #[test]
    fn an_x_that_is_no_flag_is_a_letter() {
        for pattern in [
            r"\(?x",
            r"\(?x:",
            "[(?x)]",
            "[](?x)]",
            "[^](?x)]",
            "[[:alpha:](?x)]",
            "(?P<x>a)",
            "(?<x>a)",
            "(?i)x",
            "(?:x)",
            "(?i:x)",
        ] {
            assert!(!has_extended_flag(pattern), "{pattern}");
            assert!(Pattern::value(pattern).is_ok(), "{pattern}");
        }
    }
}

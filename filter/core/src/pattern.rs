//! Patterns for values and paths.
//!
//! Plain text, or a regex for `regex-lite`; always matched as a whole.

mod outline;

use regex_lite::{Regex, RegexBuilder};

use self::outline::Outline;
use crate::budget::Fuel;

/// The largest compiled regex, in bytes of a 64-bit machine on every machine.
///
/// Five ordinary patterns together need less than 7 KiB; `(.{0,100}){100}` would need megabytes and seconds.
pub const SIZE_LIMIT: usize = 8 << 10;

/// The longest regex as written, in bytes; plain text has no limit.
///
/// A longer one hardly ever compiles to [`SIZE_LIMIT`]. It is rejected without parsing: a parser's time grows with the text, in places quadratically, and Envoy's threads wait.
pub const PATTERN_LIMIT: usize = 8 << 10;

/// The longest text that a regex is tried on, in bytes.
///
/// A longer value can still equal an exact one.
pub const TEXT_LIMIT: usize = 4 << 10;

/// What one state adds to the count for [`SIZE_LIMIT`].
const BYTES_PER_STATE: usize = 32;

/// What a state adds to [`cost`] for each capture group, in bytes, for the tables of a match.
const TABLE_WEIGHT: usize = 4;

/// The deepest nesting of groups in a pattern.
const NEST_LIMIT: u32 = 50;

/// Why a pattern is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Longer than [`PATTERN_LIMIT`], with this many bytes.
    #[error("a regex of {0} bytes, expected at most {PATTERN_LIMIT}")]
    TooLong(usize),
    /// Larger than [`SIZE_LIMIT`] once compiled.
    #[error("compiled, the regex is larger than {SIZE_LIMIT} bytes")]
    TooLarge,
    /// An error of regex-lite, without a position; the CLI adds one if it can.
    #[error("{0}")]
    Syntax(String),
    /// The flag `x`, which would drop white space and comments inside the pattern.
    #[error("the flag `x` is not supported")]
    ExtendedFlag,
}

/// A pattern for a value: one text, or a regex that matches the whole value.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The value equals this text.
    Exact(String),
    /// The regex, anchored at both ends, matches the value.
    Regex(Program),
}

/// A compiled regex.
#[derive(Debug, Clone)]
pub struct Program {
    regex: Regex,
    /// How many states one character may visit.
    states: usize,
    /// A text that every match contains.
    ///
    /// Searching it first is a hundred times cheaper, and most texts that do not match lack it.
    needle: String,
}

impl Program {
    /// Does the text match?
    ///
    /// A text that is not UTF-8 or longer than [`TEXT_LIMIT`] does not, nor does any text once the fuel is spent.
    pub(crate) fn matches(&self, text: &[u8], fuel: &Fuel) -> bool {
        let needle = self.needle.as_bytes();
        text.len() <= TEXT_LIMIT
            && fuel.spend_on_search(text.len())
            && (needle.is_empty() || text.windows(needle.len()).any(|window| window == needle))
            && fuel.spend_on_match(text.len(), self.states)
            && str::from_utf8(text).is_ok_and(|text| self.regex.is_match(text))
    }
}

impl Pattern {
    /// Compiles the pattern of a header or baggage value.
    pub fn value(pattern: &str) -> Result<Self, InvalidPattern> {
        match literal(pattern) {
            Some(text) => Ok(Self::Exact(text)),
            None => program(pattern, &anchored(pattern)).map(Self::Regex),
        }
    }

    /// Does the value match?
    ///
    /// A value that is not UTF-8 or longer than [`TEXT_LIMIT`] matches no regex.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.matches_within(value, &Fuel::unlimited())
    }

    pub(crate) fn matches_within(&self, value: &[u8], fuel: &Fuel) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(program) => program.matches(value, fuel),
        }
    }

    pub(crate) fn is_regex(&self) -> bool {
        matches!(self, Self::Regex(_))
    }
}

/// A pattern to try on several values.
///
/// A regex gets at most [`TEXT_LIMIT`] bytes of them together; a value that exceeds the rest is skipped.
pub(crate) struct Budgeted<'p> {
    pattern: &'p Pattern,
    fuel: &'p Fuel,
    left: usize,
}

impl<'p> Budgeted<'p> {
    pub(crate) fn new(pattern: &'p Pattern, fuel: &'p Fuel) -> Self {
        Self {
            pattern,
            fuel,
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
        self.pattern.matches_within(value, self.fuel)
    }
}

/// Compiles the pattern of a path.
pub fn path(pattern: &str) -> Result<Program, InvalidPattern> {
    program(pattern, &anchored_path(pattern))
}

/// What a pattern costs the proxy to compile and to keep, in bytes.
///
/// 0 for plain text, and for a pattern that is too long.
///
/// Each match of a regex needs two tables of its states and groups.
pub(crate) fn cost(pattern: &str) -> usize {
    if pattern.len() > PATTERN_LIMIT || literal(pattern).is_some() {
        return 0;
    }
    let Outline { size, groups, .. } = Outline::of(pattern);
    if size > SIZE_LIMIT {
        return 0;
    }
    let tables = (size / BYTES_PER_STATE).saturating_mul(groups);
    size.saturating_add(tables.saturating_mul(TABLE_WEIGHT))
}

/// Anchors the pattern of a value.
pub fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// Anchors the pattern of a path, with an optional leading slash.
pub fn anchored_path(pattern: &str) -> String {
    format!("^/?(?:{pattern})$")
}

/// The only text that a pattern matches, if it is plain text.
///
/// No operators, and only escapes of punctuation.
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

/// Compiles the wrapped pattern.
///
/// The pattern must also be valid by itself (`a)|(?:b` is valid only when wrapped).
fn program(pattern: &str, wrapped: &str) -> Result<Program, InvalidPattern> {
    if pattern.len() > PATTERN_LIMIT {
        return Err(InvalidPattern::TooLong(pattern.len()));
    }
    let outline = Outline::of(pattern);
    if outline.is_extended {
        return Err(InvalidPattern::ExtendedFlag);
    }
    if outline.size > SIZE_LIMIT {
        return Err(InvalidPattern::TooLarge);
    }
    if !outline.is_balanced {
        compile(pattern)?;
    }
    // The wrapped pattern may give another error.
    let regex = compile(wrapped).map_err(|error| compile(pattern).err().unwrap_or(error))?;
    Ok(Program {
        regex,
        states: outline.size / BYTES_PER_STATE,
        needle: outline.needle,
    })
}

/// Compiles a regex. [`Outline`] rejects larger ones before; this limit is a safeguard.
fn compile(pattern: &str) -> Result<Regex, InvalidPattern> {
    RegexBuilder::new(pattern)
        .size_limit(2 * SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|error| InvalidPattern::Syntax(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each takes minutes if every `(?` or `[:` starts a search through the rest of the text.
    #[test]
    fn looking_for_an_x_flag_takes_one_pass() {
        for text in ["(?", "(?i", "[:", "[[:a", "[a-"] {
            let pattern = format!("[{}", text.repeat(2_000_000));
            assert!(!Outline::of(&pattern).is_extended, "{text}");
            assert!(!Outline::of(&text.repeat(2_000_000)).is_extended, "{text}");
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
            assert!(Outline::of(pattern).is_extended, "{pattern}");
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
            assert!(!Outline::of(pattern).is_extended, "{pattern}");
            assert!(Pattern::value(pattern).is_ok(), "{pattern}");
        }
    }
}

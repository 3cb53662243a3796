//! Validates a pattern, and says what is wrong with it and where.
//!
//! Owns the wording of a rejected pattern; does not know which flag or field it came from. `regex-lite`, which the filter runs, says what is wrong but not where;
//! `regex-syntax`, which the conflict check runs, says both. A pattern must be valid for both, so this module parses it with both.

use std::convert::Infallible;

use intercept_core::pattern::{self, InvalidPattern, Pattern};
use regex_syntax::ast::{self, Ast, ClassSetItem, Flags, FlagsItemKind, Visitor};

/// The deepest nesting of groups, the same as the core's.
const NEST_LIMIT: u32 = 50;

/// Why a pattern is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", at(*.position))]
pub struct InvalidRegex {
    /// What is wrong, without a full stop.
    pub what: String,
    /// The position of the offending character, counted from 1; `None` if it is unknown.
    pub position: Option<usize>,
}

fn at(position: Option<usize>) -> String {
    position.map_or_else(String::new, |position| format!(" at position {position}"))
}

/// Validates a pattern for the value of a header or of a baggage member.
pub fn describe(pattern: &str) -> Result<(), InvalidRegex> {
    judge(pattern, Pattern::value(pattern).err())
}

/// Validates a pattern for a path.
pub fn describe_path(pattern: &str) -> Result<(), InvalidRegex> {
    judge(pattern, pattern::path(pattern).err())
}

fn judge(pattern: &str, refused: Option<InvalidPattern>) -> Result<(), InvalidRegex> {
    // A pattern that is too long is not parsed at all.
    if let Some(refused @ InvalidPattern::TooLong(_)) = refused {
        return Err(InvalidRegex {
            what: refused.to_string(),
            position: None,
        });
    }
    let ast = match parse(pattern) {
        Ok(ast) => ast,
        Err(error) => {
            return Err(InvalidRegex {
                what: error.kind().to_string(),
                position: Some(character(pattern, error.span().start.offset)),
            });
        }
    };
    let Some(refused) = refused else {
        return Ok(());
    };
    let traits = Traits::of(&ast);
    let offset = match refused {
        InvalidPattern::ExtendedFlag => traits.extended_flag,
        InvalidPattern::Syntax(_) => traits.unicode_class,
        InvalidPattern::TooLong(_) | InvalidPattern::TooLarge => None,
    };
    Err(InvalidRegex {
        what: refused.to_string(),
        position: offset.map(|offset| character(pattern, offset)),
    })
}

fn character(pattern: &str, offset: usize) -> usize {
    pattern
        .char_indices()
        .take_while(|(start, _)| *start < offset)
        .count()
        + 1
}

fn parse(pattern: &str) -> Result<Ast, Box<ast::Error>> {
    ast::parse::ParserBuilder::new()
        .nest_limit(NEST_LIMIT)
        .build()
        .parse(pattern)
        .map_err(Box::new)
}

/// The pattern's syntax tree, if it means the same over bytes and over characters.
///
/// That is decided for ASCII text.
///
/// Only such a pattern may become an automaton over bytes. `None` also for an anchored pattern that is too long: it may have bypassed validation, and parsing it would take minutes.
pub(crate) fn parse_ascii(pattern: &str) -> Option<Ast> {
    let is_short = pattern.len() <= pattern::PATTERN_LIMIT + pattern::anchored_path("").len();
    is_short
        .then(|| parse(pattern).ok())
        .flatten()
        .filter(|ast| !Traits::of(ast).beyond_ascii)
}

/// Findings about a pattern's text, with byte offsets.
#[derive(Default)]
struct Traits {
    /// A character above U+007F, literal or escaped, or a flag that switches Unicode on or off.
    beyond_ascii: bool,
    extended_flag: Option<usize>,
    unicode_class: Option<usize>,
}

impl Traits {
    fn of(ast: &Ast) -> Self {
        let Ok(traits) = ast::visit(ast, Self::default());
        traits
    }

    fn literal(&mut self, literal: &ast::Literal) {
        self.beyond_ascii |= !literal.c.is_ascii();
    }

    fn flags(&mut self, flags: &Flags) {
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Flag(ast::Flag::Unicode) => self.beyond_ascii = true,
                FlagsItemKind::Flag(ast::Flag::IgnoreWhitespace) => {
                    self.extended_flag.get_or_insert(item.span.start.offset);
                }
                _ => {}
            }
        }
    }
}

impl Visitor for Traits {
    type Output = Self;
    type Err = Infallible;

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        match ast {
            Ast::Literal(literal) => self.literal(literal),
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => group
                .flags()
                .into_iter()
                .for_each(|flags| self.flags(flags)),
            Ast::ClassUnicode(class) => {
                self.unicode_class.get_or_insert(class.span.start.offset);
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        match item {
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => {
                self.literal(&range.start);
                self.literal(&range.end);
            }
            ClassSetItem::Unicode(class) => {
                self.unicode_class.get_or_insert(class.span.start.offset);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(pattern: &str) -> String {
        describe(pattern).unwrap_err().to_string()
    }

    #[test]
    fn a_pattern_of_both_flavours_is_accepted() {
        for pattern in [
            "",
            "Bob",
            "B.*",
            "(staging-)?api/.*",
            r"\d{3}-\w+",
            "(?i)bob",
            "ö+",
            "[[:alpha:]]",
            r"\(?xyz",
            r"a\b.",
            "a{2,3}",
        ] {
            assert_eq!(describe(pattern), Ok(()), "{pattern}");
            assert_eq!(describe_path(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn a_refused_pattern_names_what_and_the_character_it_starts_at() {
        assert_eq!(refused("ab(c"), "unclosed group at position 3");
        assert_eq!(refused("öö(c"), "unclosed group at position 3");
        assert_eq!(refused("a)|(?:b"), "unopened group at position 2");
        assert_eq!(refused("[a"), "unclosed character class at position 1");
        assert_eq!(
            refused("ab|*"),
            "repetition operator missing expression at position 4"
        );
        assert_eq!(
            refused(r"a(?!b)"),
            "look-around, including look-ahead and look-behind, is not supported at position 2"
        );
        assert_eq!(
            refused(r"(a)\1"),
            "backreferences are not supported at position 4"
        );
        assert_eq!(
            refused("a(?i"),
            "expected flag but got end of regex at position 5"
        );
    }

    #[test]
    fn what_only_the_filter_refuses_is_refused_too() {
        assert_eq!(
            refused(r"ab\pL"),
            "Unicode character classes are not supported at position 3"
        );
        assert_eq!(
            refused(r"[a\pL]"),
            "Unicode character classes are not supported at position 3"
        );
        assert_eq!(
            refused("a(?ix)b"),
            "the flag `x` is not supported at position 5"
        );
        assert_eq!(
            refused("(?x: a)"),
            "the flag `x` is not supported at position 3"
        );
        let unknown_position = describe("(.{0,100}){100}").unwrap_err();
        assert_eq!(unknown_position.position, None);
    }

    #[test]
    fn a_pattern_that_is_too_long_is_parsed_by_nobody() {
        let names: String = (0..100_000).map(|n| format!("(?<a{n}>)")).collect();
        for pattern in ["(?".repeat(600_000), names] {
            let expected = format!("a regex of {} bytes, expected at most 8192", pattern.len());
            assert_eq!(refused(&pattern), expected);
            assert_eq!(describe_path(&pattern).unwrap_err().to_string(), expected);
            assert!(parse_ascii(&pattern).is_none());
        }
        let longest = format!("[{}]", "a".repeat(8_190));
        assert!(parse_ascii(&pattern::anchored_path(&longest)).is_some());
    }

    #[test]
    fn a_path_is_compiled_even_where_it_is_plain_text() {
        let long = "a".repeat(4 << 10);
        assert_eq!(describe(&long), Ok(()));
        assert!(describe_path(&long).is_err());
    }

    #[test]
    fn only_patterns_without_a_word_beyond_ascii_become_automata() {
        for ascii in ["a.*[^b]", r"\x41", "(?i)a", r"\w\d\s"] {
            assert!(parse_ascii(ascii).is_some(), "{ascii}");
        }
        for beyond in [
            "ä", r"\xe9", r"\u{e9}", "[a-ü]", "[ü]", "(?-u)a", "(?u:a)", "(",
        ] {
            assert!(parse_ascii(beyond).is_none(), "{beyond}");
        }
    }
}

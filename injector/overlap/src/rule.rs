//! One intercept's conditions, grouped by key for comparison and parsed on first use.
//! Knows nothing of other intercepts.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use intercept_core::pattern::{self, Pattern, literal};
use intercept_core::{Intercept, MatchPath};
use regex_syntax::hir::Hir;

use super::automaton::{Automaton, Common};
use super::syntax::{self, Marks};

/// The header or baggage member that a condition is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A header, in lower case.
    Header(String),
    /// A member of the `baggage` header; case-sensitive.
    Baggage(String),
}

/// A regex, or a text written as one.
pub(super) struct Condition<'i> {
    written: &'i str,
    is_path: bool,
    exact: Option<String>,
    pattern: OnceCell<Option<Pattern>>,
    syntax: OnceCell<Option<Hir>>,
    marks: OnceCell<Option<Marks>>,
    automaton: OnceCell<Option<Automaton>>,
}

/// A condition on the path.
pub(super) enum PathCondition<'i> {
    Equal(&'i str),
    Prefix(&'i str),
    Regex(Box<Condition<'i>>),
}

/// All conditions under one key.
pub(super) struct Entry<'i> {
    /// The key as first spelled.
    pub(super) spelled: &'i str,
    /// More than one if the intercept repeats the key: all must match.
    pub(super) conditions: Vec<Condition<'i>>,
    /// A word that these conditions have in common.
    pub(super) alone: OnceCell<Common>,
}

/// An intercept's conditions by key.
pub(super) struct Rule<'i> {
    pub(super) keys: BTreeMap<Key, Entry<'i>>,
    pub(super) path: Option<PathCondition<'i>>,
}

impl<'i> Rule<'i> {
    pub(super) fn new(intercept: &'i Intercept) -> Self {
        let headers = intercept.headers.iter().map(|header| {
            let key = Key::Header(intercept_core::header_key(&header.name));
            (key, header.name.as_str(), &header.value)
        });
        let baggage = intercept.baggage.iter().map(|member| {
            let key = Key::Baggage(member.key.clone());
            (key, member.key.as_str(), &member.value)
        });
        let mut keys = BTreeMap::new();
        for (key, spelled, value) in headers.chain(baggage) {
            let entry = keys.entry(key).or_insert_with(|| Entry {
                spelled,
                conditions: Vec::new(),
                alone: OnceCell::new(),
            });
            entry.conditions.push(Condition::value(value));
        }
        Self {
            keys,
            path: intercept.path.as_ref().map(PathCondition::new),
        }
    }

    /// Does it match requests without any header or baggage?
    pub(super) fn is_everybody(&self) -> bool {
        self.keys.is_empty()
    }

    /// Are all its keys also keys of `other`?
    pub(super) fn names_nothing_beyond(&self, other: &Self) -> bool {
        self.keys.keys().all(|key| other.keys.contains_key(key))
    }
}

impl<'i> Condition<'i> {
    fn value(written: &'i str) -> Self {
        Self::new(written, false, literal(written))
    }

    fn path(written: &'i str) -> Self {
        // Plain text is not exact here: the leading slash is optional.
        Self::new(written, true, None)
    }

    fn new(written: &'i str, is_path: bool, exact: Option<String>) -> Self {
        Self {
            written,
            is_path,
            exact,
            pattern: OnceCell::new(),
            syntax: OnceCell::new(),
            marks: OnceCell::new(),
            automaton: OnceCell::new(),
        }
    }

    /// The only text that it matches, if it is plain text.
    pub(super) fn exact(&self) -> Option<&str> {
        self.exact.as_deref()
    }

    /// The text that the author most likely meant, with the dots of `bob.example.com` read as dots.
    ///
    /// It matches.
    pub(super) fn plain(&self) -> Option<String> {
        let mut escaped = String::with_capacity(self.written.len());
        let mut chars = self.written.chars();
        while let Some(char) = chars.next() {
            match char {
                '.' => escaped.push('\\'),
                '\\' => {
                    escaped.push(char);
                    escaped.extend(chars.next());
                    continue;
                }
                _ => {}
            }
            escaped.push(char);
        }
        literal(&escaped)
    }

    /// Does the word match, as the filter decides it?
    pub(super) fn matches(&self, word: &str) -> bool {
        if let Some(exact) = self.exact() {
            return exact == word;
        }
        self.pattern
            .get_or_init(|| {
                if self.is_path {
                    pattern::path(self.written).ok().map(Pattern::Regex)
                } else {
                    Pattern::value(self.written).ok()
                }
            })
            .as_ref()
            .is_some_and(|pattern| pattern.matches(word.as_bytes()))
    }

    /// The syntax tree without anchors.
    ///
    /// `None`, as below, if the pattern cannot be evaluated over bytes.
    pub(super) fn syntax(&self) -> Option<&Hir> {
        self.syntax
            .get_or_init(|| syntax::read(self.written))
            .as_ref()
    }

    /// Properties that cheaply distinguish it from other patterns.
    pub(super) fn marks(&self) -> Option<&Marks> {
        self.marks
            .get_or_init(|| {
                let written = self.syntax()?.clone();
                Some(Marks::new(match self.is_path {
                    true => syntax::path(written),
                    false => written,
                }))
            })
            .as_ref()
    }

    pub(super) fn automaton(&self) -> Option<&Automaton> {
        self.automaton
            .get_or_init(|| Automaton::new(&syntax::anchored(self.marks()?.pattern().clone())))
            .as_ref()
    }
}

impl<'i> PathCondition<'i> {
    fn new(path: &'i MatchPath) -> Self {
        match path {
            MatchPath::Equal(text) => Self::Equal(text),
            MatchPath::Prefix(text) => Self::Prefix(text),
            MatchPath::Regex(pattern) => Self::Regex(Box::new(Condition::path(pattern))),
        }
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Equal(text) => path == *text,
            Self::Prefix(text) => path.starts_with(text),
            Self::Regex(condition) => condition.matches(path),
        }
    }
}

//! A pattern's syntax tree, and cheap properties of its words: prefixes, suffixes and letters.
//! They distinguish most pairs of disjoint patterns without an automaton.

use std::cell::OnceCell;

use regex_syntax::hir::literal::{ExtractKind, Extractor, Literal, Seq};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use crate::regex_error::parse_ascii;

/// Parses a pattern; `None` if it means something else over bytes than over characters.
pub(super) fn read(pattern: &str) -> Option<Hir> {
    let ast = parse_ascii(pattern)?;
    let translator = TranslatorBuilder::new().unicode(false).utf8(false).build();
    { translator }.translate(pattern, &ast).ok()
}

/// Anchors a pattern as [`intercept_core::pattern::anchored`] does.
pub(super) fn anchored(pattern: Hir) -> Hir {
    Hir::concat(vec![Hir::look(Look::Start), pattern, Hir::look(Look::End)])
}

/// Prepares a path pattern as [`intercept_core::pattern::anchored_path`] does, without anchors.
pub(super) fn path(pattern: Hir) -> Hir {
    let slash = Hir::repetition(Repetition {
        min: 0,
        max: Some(1),
        greedy: true,
        sub: Box::new(Hir::literal(*b"/")),
    });
    Hir::concat(vec![slash, pattern])
}

/// Limits of the comparison: the number of prefixes or suffixes, and their length.
const MOST_ENDS: usize = 64;
const LONGEST_END: usize = 32;

/// Properties that all words of a pattern share.
pub(super) struct Marks {
    pattern: Hir,
    letters: Letters,
    begins: OnceCell<Seq>,
    ends: OnceCell<Seq>,
}

/// Sets of bytes, one bit each.
#[derive(Clone, Copy)]
struct Letters {
    /// Letters that may occur in a word.
    possible: [u128; 2],
    /// Letters that occur in every word.
    needed: [u128; 2],
}

impl Marks {
    pub(super) fn new(pattern: Hir) -> Self {
        Self {
            letters: letters(&pattern),
            begins: OnceCell::new(),
            ends: OnceCell::new(),
            pattern,
        }
    }

    pub(super) fn pattern(&self) -> &Hir {
        &self.pattern
    }

    /// Is it certain that no word matches both? `false` if undecided.
    pub(super) fn are_apart(&self, other: &Self) -> bool {
        self.letters.lack(other.letters)
            || other.letters.lack(self.letters)
            || !any_pair(self.begins(), other.begins(), <[u8]>::starts_with)
            || !any_pair(self.ends(), other.ends(), <[u8]>::ends_with)
    }

    fn begins(&self) -> &Seq {
        self.begins
            .get_or_init(|| self.ends_of(ExtractKind::Prefix))
    }

    fn ends(&self) -> &Seq {
        self.ends.get_or_init(|| self.ends_of(ExtractKind::Suffix))
    }

    fn ends_of(&self, kind: ExtractKind) -> Seq {
        Extractor::new()
            .kind(kind)
            .limit_class(MOST_ENDS)
            .limit_total(MOST_ENDS)
            .limit_literal_len(LONGEST_END)
            .extract(&self.pattern)
    }
}

/// Could one word have a prefix (or suffix) of each pattern?
fn any_pair(one: &Seq, other: &Seq, is_at_end: fn(&[u8], &[u8]) -> bool) -> bool {
    let (Some(one), Some(other)) = (one.literals(), other.literals()) else {
        return true;
    };
    let fit = |one: &Literal, other: &Literal| {
        let (short, long) = match one.len() <= other.len() {
            true => (one, other),
            false => (other, one),
        };
        // An exact literal is a whole word.
        let may_go_on = !short.is_exact() || short.len() == long.len();
        may_go_on && is_at_end(long.as_bytes(), short.as_bytes())
    };
    one.iter()
        .any(|one| other.iter().any(|other| fit(one, other)))
}

fn letters(pattern: &Hir) -> Letters {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => Letters::NONE,
        HirKind::Literal(literal) => literal.0.iter().fold(Letters::NONE, |all, byte| {
            all.and(Letters::of(*byte, *byte))
        }),
        HirKind::Class(class) => class_letters(class),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (_, Some(0)) => Letters::NONE,
            (0, _) => letters(&repetition.sub).or(Letters::NONE),
            _ => letters(&repetition.sub),
        },
        HirKind::Capture(capture) => letters(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(letters).fold(Letters::NONE, Letters::and),
        HirKind::Alternation(choices) => choices
            .iter()
            .map(letters)
            .reduce(Letters::or)
            .unwrap_or(Letters::NONE),
    }
}

fn class_letters(class: &Class) -> Letters {
    let bytes = match class {
        Class::Bytes(class) => Some(class.clone()),
        Class::Unicode(class) => class.to_byte_class(),
    };
    let ranges = bytes.iter().flat_map(|class| class.ranges());
    let all = ranges.map(|range| Letters::of(range.start(), range.end()));
    let any = Letters::of(0, u8::MAX);
    match bytes {
        Some(_) => all.reduce(Letters::or).unwrap_or(any),
        None => any,
    }
}

impl Letters {
    /// The letters of the empty word.
    const NONE: Self = Self {
        possible: [0; 2],
        needed: [0; 2],
    };

    /// The letters of a one-letter word in this range.
    fn of(first: u8, last: u8) -> Self {
        let mut possible = [0; 2];
        for letter in first..=last {
            possible[usize::from(letter >> 7)] |= 1 << (letter & 0x7f);
        }
        Self {
            possible,
            needed: if first == last { possible } else { [0; 2] },
        }
    }

    /// The letters of a concatenation.
    fn and(self, other: Self) -> Self {
        let both = |one: [u128; 2], other: [u128; 2]| [one[0] | other[0], one[1] | other[1]];
        Self {
            possible: both(self.possible, other.possible),
            needed: both(self.needed, other.needed),
        }
    }

    /// The letters of an alternation.
    fn or(self, other: Self) -> Self {
        let [one, two] = [0, 1].map(|half: usize| self.needed[half] & other.needed[half]);
        Self {
            needed: [one, two],
            ..self.and(other)
        }
    }

    /// Does `other` need a letter that is impossible here?
    fn lack(self, other: Self) -> bool {
        [0, 1]
            .iter()
            .any(|half: &usize| other.needed[*half] & !self.possible[*half] != 0)
    }
}

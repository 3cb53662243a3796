//! The shortest word of one pattern, read off its syntax tree.
//!
//! The same result as a search, without building an automaton.
//! If the tree alone cannot decide (assertions, blanks at an end, letters that cannot be shown), the caller has to search.

use intercept_core::pattern::TEXT_LIMIT;
use regex_syntax::hir::{Class, ClassBytes, Hir, HirKind};

/// The best words of a part of a pattern.
///
/// The shortest, and of those the one with preferred letters.
#[derive(Clone)]
struct Best {
    any: Vec<u8>,
    /// The best non-empty word; `None` if there is none.
    longer: Option<Vec<u8>>,
}

/// The shortest word that `pattern` matches entirely, preferring earlier `letters`.
///
/// `None` if the tree cannot decide.
///
/// The empty word only if there is no other.
pub(super) fn shortest_word(pattern: &Hir, letters: &[u8]) -> Option<String> {
    let Best { any, longer } = best(pattern, letters)?;
    let word = longer.unwrap_or(any);
    let is_blank = |letter: Option<&u8>| matches!(letter, Some(b' ' | b'\t'));
    if is_blank(word.first()) || is_blank(word.last()) || word.len() > TEXT_LIMIT {
        return None;
    }
    String::from_utf8(word).ok()
}

fn best(hir: &Hir, letters: &[u8]) -> Option<Best> {
    match hir.kind() {
        HirKind::Empty => Some(Best::of(Vec::new())),
        HirKind::Literal(literal) => {
            let is_letter = |byte| letters.contains(byte);
            let is_word = literal.0.iter().all(is_letter);
            is_word.then(|| Best::of(literal.0.to_vec()))
        }
        HirKind::Class(Class::Bytes(class)) => letter(class, letters),
        HirKind::Class(Class::Unicode(class)) => letter(&class.to_byte_class()?, letters),
        HirKind::Look(_) => None,
        HirKind::Capture(capture) => best(&capture.sub, letters),
        HirKind::Repetition(repetition) => {
            if repetition.max == Some(0) {
                return Some(Best::of(Vec::new()));
            }
            let inner = best(&repetition.sub, letters)?;
            let times = usize::try_from(repetition.min).ok()?;
            if inner.any.len().checked_mul(times)? > TEXT_LIMIT {
                return None;
            }
            let any = inner.any.repeat(times);
            let longer = if any.is_empty() {
                inner.longer
            } else {
                Some(any.clone())
            };
            Some(Best { any, longer })
        }
        HirKind::Concat(parts) => concatenated(parts, letters),
        HirKind::Alternation(choices) => {
            // An undecided alternative may hold a shorter word than the others.
            let choices: Option<Vec<Best>> =
                choices.iter().map(|choice| best(choice, letters)).collect();
            choices?
                .into_iter()
                .reduce(|one, other| one.or(other, letters))
        }
    }
}

fn letter(class: &ClassBytes, letters: &[u8]) -> Option<Best> {
    let has = |letter: &&u8| {
        class
            .ranges()
            .iter()
            .any(|range| (range.start()..=range.end()).contains(letter))
    };
    letters
        .iter()
        .find(has)
        .map(|letter| Best::of(vec![*letter]))
}

fn concatenated(parts: &[Hir], letters: &[u8]) -> Option<Best> {
    let mut any = Vec::new();
    let mut longer: Option<Vec<u8>> = None;
    for part in parts {
        let part = best(part, letters)?;
        any.extend(&part.any);
        if any.len() > TEXT_LIMIT {
            return None;
        }
        // Used only if all parts can be empty: then a single part makes the word.
        longer = preferred(longer, part.longer, letters);
    }
    let longer = if any.is_empty() {
        longer
    } else {
        Some(any.clone())
    };
    Some(Best { any, longer })
}

fn preferred(one: Option<Vec<u8>>, other: Option<Vec<u8>>, letters: &[u8]) -> Option<Vec<u8>> {
    let rank = |word: &Vec<u8>| {
        let places = word
            .iter()
            .map(|letter| letters.iter().position(|known| known == letter));
        (word.len(), places.collect::<Vec<_>>())
    };
    [one, other].into_iter().flatten().min_by_key(rank)
}

impl Best {
    fn of(word: Vec<u8>) -> Self {
        let longer = (!word.is_empty()).then(|| word.clone());
        Self { any: word, longer }
    }

    fn or(self, other: Self, letters: &[u8]) -> Self {
        Self {
            any: preferred(Some(self.any), Some(other.any), letters).unwrap_or_default(),
            longer: preferred(self.longer, other.longer, letters),
        }
    }
}

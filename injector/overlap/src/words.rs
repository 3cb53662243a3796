//! Possible values of headers, baggage members and paths, and their intersections.
//!
//! Knows HTTP's alphabets; does not know what an overlap is.

use intercept_core::{is_mirror, is_probe_exempt};

use super::automaton::{Automaton, BEYOND_ASCII, Common, Space, Work, common_word};
use super::rule::{Condition, Key, PathCondition};
use super::shortest::shortest_word;

/// Letters in the order that a reader prefers: letters and digits, then separators, then the rest.
const READABLE: &[u8] =
    b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.~/:@+=,;*!'()&$%#?|^`<>[]{}\"\\ ";

/// Letters of a method (RFC 9110 section 5.6.2).
const METHOD: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~";

/// Methods to try before any other word.
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// Conditions elsewhere in the request that affect a value.
#[derive(Clone, Copy)]
pub(super) struct Circumstances {
    /// One of the intercepts takes all requests, except for the kubelet's probes.
    pub(super) everybody: bool,
    /// One of the intercepts has baggage conditions.
    pub(super) baggage: bool,
}

/// The word that all conditions under one key share.
pub(super) fn common_value(key: &Key, conditions: &[&Condition], work: &mut Work) -> Common {
    if let Some(exact) = conditions.iter().find_map(|condition| condition.exact()) {
        let is_common = can_be_sent(key, exact) && all_match(conditions, exact);
        return word_if(is_common, exact);
    }
    let method = *key == Key::Header(":method".to_owned());
    if method && let Some(known) = METHODS.iter().find(|known| all_match(conditions, known)) {
        return Common::Word((*known).to_owned());
    }
    let fits = |word: &String| can_be_sent(key, word) && all_match(conditions, word);
    if let Some(word) = plain_words(conditions, READABLE).find(fits) {
        return Common::Word(word);
    }
    // No common word is shorter than the shortest of one condition; if the others match that one, it is the answer. The last condition is the one to try: those before it
    // are compiled once for thousands of comparisons.
    if let Some((last, rest)) = conditions.split_last()
        && !method
        && let Some(word) = (last.syntax())
            .and_then(|syntax| shortest_word(syntax, READABLE))
            .filter(|word| all_match(rest, word))
    {
        return Common::Word(word);
    }
    if are_apart(conditions) {
        return Common::Nothing;
    }
    let Some(automata) = automata(conditions) else {
        return Common::Unknown;
    };
    if method {
        let found = common_word(&automata, &space(METHOD, false), work);
        return if found == Common::Word(String::new()) {
            Common::Nothing
        } else {
            found
        };
    }
    match key {
        Key::Header(_) => {
            let more = [READABLE, &[b'\t', BEYOND_ASCII]].concat();
            readable_or_unknown(
                &automata,
                &space(READABLE, false),
                &space(&more, false),
                work,
            )
        }
        Key::Baggage(_) => {
            // Percent-encoding can carry every byte.
            let control = || (0..b' ').chain([0x7f]);
            let letters: Vec<u8> = READABLE.iter().copied().chain(control()).collect();
            let more = [&letters[..], &[BEYOND_ASCII]].concat();
            readable_or_unknown(&automata, &space(&letters, true), &space(&more, true), work)
        }
    }
}

/// Applies the filter's special cases, which override the conditions.
pub(super) fn in_circumstances(
    key: &Key,
    common: Common,
    is_exact: bool,
    circumstances: Circumstances,
) -> Common {
    let (Key::Header(name), Common::Word(word)) = (key, &common) else {
        return common;
    };
    let never_matches = match name.as_str() {
        "user-agent" => circumstances.everybody && is_probe_exempt(word.as_bytes()),
        ":authority" => is_mirror(word.as_bytes()),
        // The `baggage` header would have to satisfy its own condition and those on its members.
        "baggage" if circumstances.baggage => return Common::Unknown,
        _ => false,
    };
    match (never_matches, is_exact) {
        (false, _) => common,
        (true, true) => Common::Nothing,
        // Another word might match; there was no search for one.
        (true, false) => Common::Unknown,
    }
}

/// A request target that meets all conditions on the path and on `:path`.
///
/// The latter includes the query string.
pub(super) fn common_target(
    paths: &[&PathCondition],
    whole: &[&Condition],
    work: &mut Work,
) -> Common {
    let fits = |target: &str| {
        let path = target.split(['?', '#']).next().unwrap_or(target);
        can_be_path(path)
            && paths.iter().all(|condition| condition.matches(path))
            && all_match(whole, target)
    };
    if let Some(exact) = whole.iter().find_map(|condition| condition.exact()) {
        return word_if(fits(exact), exact);
    }
    let common = common_path(paths, whole, fits, work);
    // With a query string, the target might match after all.
    if common == Common::Nothing && !whole.is_empty() {
        Common::Unknown
    } else {
        common
    }
}

fn common_path(
    paths: &[&PathCondition],
    whole: &[&Condition],
    fits: impl Fn(&str) -> bool,
    work: &mut Work,
) -> Common {
    let (mut from, mut regexes) = ("/", whole.to_vec());
    for condition in paths {
        match condition {
            PathCondition::Equal(text) => return word_if(fits(text), text),
            PathCondition::Prefix(text) if text.len() > from.len() => from = text,
            PathCondition::Prefix(_) => {}
            PathCondition::Regex(condition) => regexes.push(condition),
        }
    }
    if fits(from) {
        return Common::Word(from.to_owned());
    }
    let agree = paths.iter().all(|condition| match condition {
        PathCondition::Prefix(text) => from.starts_with(text),
        _ => true,
    });
    if !agree || !can_be_path(from) {
        return Common::Nothing;
    }
    let letters: Vec<u8> = READABLE
        .iter()
        .copied()
        .filter(|letter| !b" ?#".contains(letter))
        .collect();
    let slashed = |word: String| match word.starts_with('/') {
        true => word,
        false => format!("/{word}"),
    };
    if let Some(word) = plain_words(&regexes, &letters)
        .map(slashed)
        .find(|word| fits(word))
    {
        return Common::Word(word);
    }
    // As with values. A word without its leading slash does not fit, and one with it is among the shortest.
    if let Some(word) = (regexes.last())
        .and_then(|last| shortest_word(last.syntax()?, &letters))
        .filter(|word| fits(word))
    {
        return Common::Word(word);
    }
    if are_apart(&regexes) {
        return Common::Nothing;
    }
    let Some(automata) = automata(&regexes).filter(|_| from.is_ascii()) else {
        return Common::Unknown;
    };
    let more = [&letters[..], &[BEYOND_ASCII]].concat();
    let within = |letters| Space {
        from: from.as_bytes(),
        letters,
        outer_blanks: false,
    };
    readable_or_unknown(&automata, &within(&letters), &within(&more), work)
}

/// Literal readings of the patterns, which make the best examples.
///
/// `bob.example.com`, not `bobaexampleacom`.
fn plain_words<'a>(
    conditions: &'a [&Condition],
    letters: &'a [u8],
) -> impl Iterator<Item = String> + 'a {
    let is_shown = |word: &String| word.bytes().all(|letter| letters.contains(&letter));
    conditions
        .iter()
        .filter_map(|condition| condition.plain())
        .filter(move |word| !word.is_empty() && is_shown(word))
}

/// A word that can be shown; else, whether there may be one that cannot.
fn readable_or_unknown(
    automata: &[&Automaton],
    readable: &Space,
    more: &Space,
    work: &mut Work,
) -> Common {
    // The wider search first: it usually settles both questions.
    match common_word(automata, more, work) {
        Common::Word(word)
            if word
                .bytes()
                .all(|letter| readable.letters.contains(&letter)) =>
        {
            Common::Word(word)
        }
        Common::Nothing => Common::Nothing,
        Common::Word(_) | Common::Unknown => match common_word(automata, readable, work) {
            Common::Nothing => Common::Unknown,
            found => found,
        },
    }
}

fn space(letters: &[u8], outer_blanks: bool) -> Space<'_> {
    Space {
        from: b"",
        letters,
        outer_blanks,
    }
}

/// Are two of these conditions certainly disjoint?
fn are_apart(conditions: &[&Condition]) -> bool {
    let marks: Vec<_> = conditions.iter().filter_map(|one| one.marks()).collect();
    let mut rest = marks.as_slice();
    while let Some((one, others)) = rest.split_first() {
        if others.iter().any(|other| one.are_apart(other)) {
            return true;
        }
        rest = others;
    }
    false
}

fn automata<'a>(conditions: &[&'a Condition]) -> Option<Vec<&'a Automaton>> {
    conditions
        .iter()
        .map(|condition| condition.automaton())
        .collect()
}

fn all_match(conditions: &[&Condition], word: &str) -> bool {
    conditions.iter().all(|condition| condition.matches(word))
}

fn word_if(is_common: bool, word: &str) -> Common {
    if is_common {
        Common::Word(word.to_owned())
    } else {
        Common::Nothing
    }
}

/// Can a request carry this value in the header or baggage member? RFC 9110 section 5.5.
fn can_be_sent(key: &Key, value: &str) -> bool {
    let Key::Header(name) = key else {
        return true;
    };
    if name == ":method" {
        return !value.is_empty() && value.bytes().all(|letter| METHOD.contains(&letter));
    }
    let is_blank = |char: char| matches!(char, ' ' | '\t');
    !value.starts_with(is_blank)
        && !value.ends_with(is_blank)
        && value
            .chars()
            .all(|char| char == '\t' || !char.is_ascii_control())
}

fn can_be_path(path: &str) -> bool {
    path.starts_with('/')
        && !path
            .bytes()
            .any(|byte| byte.is_ascii_control() || b" ?#".contains(&byte))
}

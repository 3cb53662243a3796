//! Decides whether one request can match two intercepts, and what follows from it.
//!
//! Pure: no cluster, no clock, no I/O; the caller passes the time. Compares automata, not text, and assumes that each header has one value: a request that repeats a header,
//! or sends a list, may match two intercepts that do not overlap according to this check.
//!
//! In undecided cases two intercepts *may overlap*, which counts as an overlap without an example:
//! patterns with text beyond ASCII; words that only characters beyond ASCII or a tab can complete; a search that reaches its limits; conditions on the whole
//! `:path` that only a query string could fulfil; a condition on the header `baggage` beside one on a baggage key; and regexes whose shortest common word is a
//! user agent or an authority that the filter never intercepts (a probe, a mirrored request).

mod automaton;
mod example;
pub mod regex_error;
mod rule;
mod shortest;
mod syntax;
mod words;

use std::collections::BTreeMap;

use intercept_core::{Config, Document, Intercept, Limits, MatchPath, Matcher, validate};

use self::automaton::{Common, Work};
pub use self::example::ExampleRequest;
use self::example::{Found, assemble};
use self::rule::{Condition, Key, Rule};
use self::words::{Circumstances, common_target, common_value, in_circumstances};

/// How many states all searches of one check may visit together.
///
/// Limits its time to about a third of a second for any pattern.
const STATES_PER_CHECK: usize = 200_000;

/// Another intercept that can match the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// The other intercept's name.
    pub other: String,
    /// The other intercept's owner.
    pub owner: String,
    /// The consequence.
    pub kind: Kind,
    /// A request that matches both; `None` if none could be found.
    pub example: Option<ExampleRequest>,
}

/// The consequence of an overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The new intercept would take the other's requests, or lose its own.
    ///
    /// All header and baggage keys of one are also keys of the other.
    Refused,
    /// They overlap only in a request with both developers' own headers.
    Note {
        /// The name of the intercept that takes such a request.
        winner: String,
    },
}

/// The live intercepts of the same port that overlap with `intercept`, sorted by name.
///
/// `name` is the name of `intercept`, and `now` is in seconds since the epoch. Entries that the filter rejects, and the entry that `intercept` replaces, do not count.
pub fn check(existing: &Document, name: &str, intercept: &Intercept, now: u64) -> Vec<Meeting> {
    check_within(
        &mut Work::new(STATES_PER_CHECK),
        existing,
        name,
        intercept,
        now,
    )
}

/// A request that the intercept matches; `None` if none could be found.
pub fn example(intercept: &Intercept) -> Option<ExampleRequest> {
    let rule = Rule::new(intercept);
    meet(&rule, None, &mut Work::new(STATES_PER_CHECK)).flatten()
}

/// A condition, or several under one key, that no request can meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Impossible {
    /// Conditions on this header, named as the filter compares it.
    Header(String),
    /// Conditions on this baggage key.
    Baggage(String),
    /// Conditions on the path.
    Path,
}

/// The first conditions found that no request can meet, as far as that can be decided.
pub fn impossible(intercept: &Intercept) -> Option<Impossible> {
    let rule = Rule::new(intercept);
    let (rules, mut work) = ([&rule], Work::new(STATES_PER_CHECK));
    let mut keys = rule.keys.keys().filter(|key| **key != whole_path());
    let key = keys.find(|key| value_of(key, &rules, &mut work).is_none());
    match key.cloned() {
        Some(Key::Header(name)) => Some(Impossible::Header(name)),
        Some(Key::Baggage(key)) => Some(Impossible::Baggage(key)),
        None => {
            let is_path = target_of(&rules, &mut work).is_none();
            is_path.then_some(Impossible::Path)
        }
    }
}

fn check_within(
    work: &mut Work,
    existing: &Document,
    name: &str,
    intercept: &Intercept,
    now: u64,
) -> Vec<Meeting> {
    let own = Rule::new(intercept);
    let mut found = Vec::new();
    let others = existing.intercepts.iter().filter(|(other, entry)| {
        *other != name && entry.port == intercept.port && entry.expires > now
    });
    for (other, entry) in others {
        let rule = Rule::new(entry);
        if let Some(example) = meet(&own, Some(&rule), work) {
            let is_refused = own.names_nothing_beyond(&rule) || rule.names_nothing_beyond(&own);
            found.push((other, entry, is_refused, example));
        }
    }
    found.retain(|(other, entry, ..)| can_match(other, entry));
    let noted = found.iter().filter(|(_, _, is_refused, _)| !is_refused);
    let noted = noted.map(|(other, entry, ..)| (other.as_str(), *entry));
    let ranks = precedence(noted.chain([(name, intercept)]));
    let kind = |other: &str, is_refused| {
        if is_refused {
            return Kind::Refused;
        }
        let winner = if ranks.get(name) < ranks.get(other) {
            name
        } else {
            other
        };
        Kind::Note {
            winner: winner.to_owned(),
        }
    };
    found
        .into_iter()
        .map(|(other, entry, is_refused, example)| Meeting {
            other: other.clone(),
            owner: entry.owner.clone(),
            kind: kind(other, is_refused),
            example,
        })
        .collect()
}

/// Does the filter accept this entry at all?
///
/// Ignores the operator's limits: what they forbid today may be allowed tomorrow, while both leases run.
fn can_match(name: &str, intercept: &Intercept) -> bool {
    validate(name, intercept, &unlimited()).is_ok()
}

fn unlimited() -> Limits {
    Limits {
        allow_all: true,
        ..Limits::default()
    }
}

/// The rank of each intercept by the filter's order.
fn precedence<'i>(
    intercepts: impl Iterator<Item = (&'i str, &'i Intercept)>,
) -> BTreeMap<String, usize> {
    let (matcher, _) = Matcher::compile(Config {
        limits: unlimited(),
        intercepts: intercepts
            .map(|(name, intercept)| {
                let mut bare = without_patterns(intercept);
                // Under its own name as the owner, so that an owner's excess intercepts are ranked, too.
                bare.owner = name.to_owned();
                (name.to_owned(), bare)
            })
            .collect(),
        ..Config::default()
    });
    let names = matcher
        .intercepts()
        .iter()
        .map(|compiled| compiled.name().to_owned());
    names.zip(0..).collect()
}

/// The same intercept with trivial patterns.
///
/// Its rank, which does not depend on patterns, stays the same, and nothing has to be compiled.
fn without_patterns(intercept: &Intercept) -> Intercept {
    let mut bare = intercept.clone();
    let values = bare.headers.iter_mut().map(|header| &mut header.value);
    values
        .chain(bare.baggage.iter_mut().map(|member| &mut member.value))
        .for_each(|value| *value = "x".to_owned());
    if let Some(MatchPath::Regex(pattern)) = &mut bare.path {
        pattern.clear();
    }
    bare
}

/// `None`: no request matches both.
///
/// `Some(None)`: they may overlap, or overlap in a request that cannot be written down.
fn meet(own: &Rule, other: Option<&Rule>, work: &mut Work) -> Option<Option<ExampleRequest>> {
    let both: Vec<&Rule> = [Some(own), other].into_iter().flatten().collect();
    let is_shared = |key: &Key| both.iter().all(|rule| rule.keys.contains_key(key));
    let keys = || {
        both.iter()
            .flat_map(|rule| rule.keys.keys())
            .filter(|key| **key != whole_path())
    };
    let mut values = BTreeMap::new();
    // Keys of both are checked first, because they decide most often.
    for key in keys().filter(|key| is_shared(key)) {
        if !values.contains_key(key) {
            values.insert(key, value_of(key, &both, work)?);
        }
    }
    let target = target_of(&both, work)?;
    for key in keys().filter(|key| !is_shared(key)) {
        values.insert(key, value_of(key, &both, work)?);
    }
    Some(assemble(values, target))
}

/// A value that meets all conditions under the key; `None` if there is none.
fn value_of<'i>(key: &Key, both: &[&Rule<'i>], work: &mut Work) -> Option<Found<'i>> {
    let entries: Vec<_> = both.iter().filter_map(|rule| rule.keys.get(key)).collect();
    let conditions: Vec<&Condition> = entries.iter().flat_map(|entry| &entry.conditions).collect();
    let common = match entries[..] {
        [entry] => entry
            .alone
            .get_or_init(|| common_value(key, &conditions, work))
            .clone(),
        _ => common_value(key, &conditions, work),
    };
    let circumstances = Circumstances {
        everybody: both.iter().any(|rule| rule.is_everybody()),
        baggage: both
            .iter()
            .flat_map(|rule| rule.keys.keys())
            .any(|key| matches!(key, Key::Baggage(_))),
    };
    let is_exact = conditions
        .iter()
        .any(|condition| condition.exact().is_some());
    let common = in_circumstances(key, common, is_exact, circumstances);
    (common != Common::Nothing).then_some(Found {
        spelled: entries.first()?.spelled,
        common,
    })
}

fn target_of(both: &[&Rule], work: &mut Work) -> Option<Common> {
    let paths: Vec<_> = both.iter().filter_map(|rule| rule.path.as_ref()).collect();
    let whole = both.iter().filter_map(|rule| rule.keys.get(&whole_path()));
    let whole: Vec<_> = whole.flat_map(|entry| &entry.conditions).collect();
    let common = common_target(&paths, &whole, work);
    (common != Common::Nothing).then_some(common)
}

fn whole_path() -> Key {
    Key::Header(":path".to_owned())
}

#[cfg(test)]
mod tests;

//! Where an intercept is filed, so that the cost of a miss does not grow with their number.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Compiled, Condition, Facts, baggage, header};
use crate::pattern::Pattern;
use crate::request::Request;

/// Positions in the matcher's list of intercepts.
type Places = Vec<usize>;

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// By header name in lower case; only the names under which something is filed.
    headers: BTreeMap<String, Table>,
    /// By baggage key.
    baggage: HashMap<Vec<u8>, Table>,
    /// Intercepts without header and baggage conditions.
    everybody: Places,
    /// Every header name that any decision may ask for, sorted.
    header_names: Vec<String>,
}

/// What is filed under one header name or baggage key.
#[derive(Debug, Default)]
struct Table {
    exact: HashMap<Vec<u8>, Places>,
    /// Intercepts that only a regex finds: candidates as soon as the name is there at all.
    regexes: Places,
}

/// Under which of its conditions an intercept is filed; smaller is cheaper to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    Header,
    Baggage,
}

impl Index {
    pub(crate) fn build(intercepts: &[Compiled]) -> Self {
        let mut index = Self {
            header_names: header_names(intercepts),
            ..Self::default()
        };
        let users = count_users(intercepts);
        for (place, compiled) in intercepts.iter().enumerate() {
            let filed = candidates_for_filing(compiled).min_by_key(|(source, condition)| {
                let is_regex = matches!(condition.pattern, Pattern::Regex(_));
                // A name that many intercepts use anyway costs no further look-up per request.
                let users = users
                    .get(&(*source, condition.name.as_str()))
                    .copied()
                    .unwrap_or_default();
                (
                    is_regex,
                    *source,
                    std::cmp::Reverse(users),
                    condition.name.as_str(),
                )
            });
            match filed {
                Some((Source::Header, condition)) => index
                    .headers
                    .entry(condition.name.clone())
                    .or_default()
                    .file(condition, place),
                Some((Source::Baggage, condition)) => index
                    .baggage
                    .entry(condition.name.clone().into_bytes())
                    .or_default()
                    .file(condition, place),
                None => index.everybody.push(place),
            }
        }
        index
    }

    pub(crate) fn header_names(&self) -> &[String] {
        &self.header_names
    }

    /// The places of all intercepts that can still match, in order of precedence.
    pub(crate) fn candidates<R: Request>(
        &self,
        facts: &Facts<R>,
    ) -> impl Iterator<Item = usize> + use<R> {
        let mut places = Places::new();
        for (name, table) in &self.headers {
            if let Some(value) = facts.header(name) {
                table.find(header::values(value), &mut places);
            }
        }
        if !self.baggage.is_empty()
            && let Some(value) = facts.header(baggage::HEADER)
        {
            for (key, value) in baggage::members(value) {
                if let Some(table) = self.baggage.get(key) {
                    table.find(std::iter::once(&*value), &mut places);
                }
            }
        }
        places.extend(&self.everybody);
        places.sort_unstable();
        places.dedup();
        places.into_iter()
    }
}

impl Table {
    fn file(&mut self, condition: &Condition, place: usize) {
        match &condition.pattern {
            Pattern::Exact(text) => self
                .exact
                .entry(text.clone().into_bytes())
                .or_default()
                .push(place),
            Pattern::Regex(_) => self.regexes.push(place),
        }
    }

    fn find<'v>(&self, values: impl Iterator<Item = &'v [u8]>, places: &mut Places) {
        places.extend(&self.regexes);
        for value in values {
            places.extend(self.exact.get(value).into_iter().flatten());
        }
    }
}

fn candidates_for_filing(compiled: &Compiled) -> impl Iterator<Item = (Source, &Condition)> {
    let (headers, baggage) = compiled.conditions();
    headers
        .iter()
        .map(|header| (Source::Header, header))
        .chain(baggage.iter().map(|member| (Source::Baggage, member)))
}

fn count_users(intercepts: &[Compiled]) -> HashMap<(Source, &str), usize> {
    let mut users: HashMap<(Source, &str), usize> = HashMap::new();
    for (source, condition) in intercepts.iter().flat_map(candidates_for_filing) {
        let count = users.entry((source, &condition.name)).or_default();
        *count = count.saturating_add(1);
    }
    users
}

fn header_names(intercepts: &[Compiled]) -> Vec<String> {
    let named = intercepts
        .iter()
        .flat_map(|compiled| compiled.conditions().0)
        .map(|header| header.name.as_str());
    let always = ["user-agent", ":authority", ":path", baggage::HEADER];
    named
        .chain(always)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

//! An index of the intercepts, so that the cost of a miss does not grow with their number.

use std::cmp::Reverse;

use super::{Compiled, Facts, HeaderId, baggage, header};
use crate::interner::Interner;
use crate::pattern::Pattern;
use crate::request::Request;

/// Positions in the matcher's list of intercepts.
type Places = Vec<usize>;

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The headers that are used as an index.
    headers: Vec<(HeaderId, Table)>,
    /// The baggage keys that are used as an index, numbered like their tables.
    baggage_keys: Interner,
    baggage: Vec<Table>,
    /// Intercepts without header and baggage conditions.
    everybody: Places,
}

/// The intercepts indexed by one header or baggage key.
#[derive(Debug, Default)]
struct Table {
    /// The exact values, numbered like their lists.
    values: Interner,
    exact: Vec<Places>,
    /// Intercepts with a regex: candidates whenever the header or key is present.
    regexes: Places,
}

impl Index {
    /// `headers` is the number of distinct header names.
    pub(crate) fn build(intercepts: &[Compiled], headers: usize) -> Self {
        let mut index = Self::default();
        let mut tables: Vec<Table> = std::iter::repeat_with(Table::default)
            .take(headers)
            .collect();
        let users = count_users(intercepts, headers);
        for (place, compiled) in intercepts.iter().enumerate() {
            // Exact before regex, headers before baggage. Among headers, the one that most intercepts use: it adds no look-up per request.
            let header = compiled.headers.iter().min_by_key(|(id, pattern)| {
                (pattern.is_regex(), Reverse(users.get(id.0).copied()), *id)
            });
            let baggage = compiled
                .baggage
                .iter()
                .min_by_key(|(_, pattern)| pattern.is_regex());
            match (header, baggage) {
                (Some((id, pattern)), baggage)
                    if !pattern.is_regex()
                        || baggage.is_none_or(|(_, member)| member.is_regex()) =>
                {
                    if let Some(table) = tables.get_mut(id.0) {
                        table.file(pattern, place);
                    }
                }
                (_, Some((key, pattern))) => {
                    let key = index.baggage_keys.intern(key);
                    if key == index.baggage.len() {
                        index.baggage.push(Table::default());
                    }
                    if let Some(table) = index.baggage.get_mut(key) {
                        table.file(pattern, place);
                    }
                }
                _ => index.everybody.push(place),
            }
        }
        index.headers = tables
            .into_iter()
            .enumerate()
            .map(|(id, table)| (HeaderId(id), table))
            .filter(|(_, table)| !table.is_empty())
            .collect();
        index
    }

    /// The indexed headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = HeaderId> {
        self.headers.iter().map(|(id, _)| *id)
    }

    /// Can an intercept match a request without any of those headers?
    pub(crate) fn needs_no_header(&self) -> bool {
        !self.baggage.is_empty() || !self.everybody.is_empty()
    }

    /// The positions of all intercepts that may match, in order of precedence.
    pub(crate) fn candidates<R: Request>(&self, facts: &Facts<R>) -> Places {
        let mut places = Places::new();
        for (id, table) in &self.headers {
            if let Some(value) = facts.header(*id) {
                table.find(header::values(value), &mut places);
            }
        }
        if !self.baggage.is_empty()
            && let Some(value) = facts.header(HeaderId::BAGGAGE)
        {
            for (key, value) in baggage::members(value) {
                if let Some(table) = str::from_utf8(key)
                    .ok()
                    .and_then(|key| self.baggage_keys.get(key))
                    .and_then(|key| self.baggage.get(key))
                {
                    table.find(std::iter::once(&*value), &mut places);
                }
            }
        }
        add(&self.everybody, &mut places);
        places
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.regexes.is_empty()
    }

    fn file(&mut self, pattern: &Pattern, place: usize) {
        match pattern {
            Pattern::Exact(text) => {
                let value = self.values.intern(text);
                match self.exact.get_mut(value) {
                    Some(places) => places.push(place),
                    None => self.exact.push(vec![place]),
                }
            }
            Pattern::Regex(_) => self.regexes.push(place),
        }
    }

    fn find<'v>(&self, values: impl Iterator<Item = &'v [u8]>, places: &mut Places) {
        add(&self.regexes, places);
        if self.exact.is_empty() {
            return;
        }
        for value in values.filter_map(|value| str::from_utf8(value).ok()) {
            if let Some(found) = self.values.get(value).and_then(|at| self.exact.get(at)) {
                add(found, places);
            }
        }
    }
}

/// Adds a list to `places`, which stays sorted and without duplicates.
///
/// An intercept is in one list only, so if the first of a list is known, all are: a client that repeats a value a thousand times costs only a thousand look-ups.
fn add(list: &[usize], places: &mut Places) {
    if list
        .first()
        .is_some_and(|first| places.binary_search(first).is_ok())
    {
        return;
    }
    for place in list {
        if let Err(at) = places.binary_search(place) {
            places.insert(at, *place);
        }
    }
}

/// The number of intercepts that use each header.
fn count_users(intercepts: &[Compiled], headers: usize) -> Vec<usize> {
    let mut users = vec![0_usize; headers];
    for (id, _) in intercepts.iter().flat_map(|compiled| &compiled.headers) {
        if let Some(count) = users.get_mut(id.0) {
            *count = count.saturating_add(1);
        }
    }
    users
}

//! Where an intercept is filed, so that the cost of a miss does not grow with their number.

use std::cmp::Reverse;

use super::{Compiled, Facts, HeaderId, baggage, header};
use crate::interner::Interner;
use crate::pattern::Pattern;
use crate::request::Request;

/// Positions in the matcher's list of intercepts.
type Places = Vec<usize>;

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Only the headers under which something is filed.
    headers: Vec<(HeaderId, Table)>,
    /// The baggage keys under which something is filed, each with the place of its table.
    baggage_keys: Interner,
    baggage: Vec<Table>,
    /// Intercepts without header and baggage conditions.
    everybody: Places,
}

/// What is filed under one header or baggage key.
#[derive(Debug, Default)]
struct Table {
    /// Each with the place of what is filed under it.
    values: Interner,
    exact: Vec<Places>,
    /// Intercepts that only a regex finds: candidates as soon as the header or key is there at all.
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
            // Exact before regex, headers before baggage; of several headers the one that most intercepts use anyway: it costs no further look-up per request.
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

    /// The headers under which intercepts are filed.
    pub(crate) fn headers(&self) -> impl Iterator<Item = HeaderId> {
        self.headers.iter().map(|(id, _)| *id)
    }

    /// Can an intercept match a request without any of those headers?
    pub(crate) fn needs_no_header(&self) -> bool {
        !self.baggage.is_empty() || !self.everybody.is_empty()
    }

    /// The places of all intercepts that can still match, in order of precedence.
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

/// Keeps `places` sorted and each place once. An intercept is filed in one list only, so where the first of a list is known, all are:
/// a client that repeats a value a thousand times costs a thousand look-ups and no more.
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

/// How many intercepts use each header.
fn count_users(intercepts: &[Compiled], headers: usize) -> Vec<usize> {
    let mut users = vec![0_usize; headers];
    for (id, _) in intercepts.iter().flat_map(|compiled| &compiled.headers) {
        if let Some(count) = users.get_mut(id.0) {
            *count = count.saturating_add(1);
        }
    }
    users
}

//! A compiled intercept and its precedence. Knows nothing of requests.

use std::cmp::{Ordering, Reverse};

use super::facts::{HeaderId, HeaderNames};
use crate::config::Intercept;
use crate::limits::Patterns;
use crate::path::{self, PathPattern};
use crate::pattern::Pattern;

/// A compiled intercept.
#[derive(Debug)]
pub struct Compiled {
    name: String,
    pub(super) headers: Vec<(HeaderId, Pattern)>,
    /// Patterns by key.
    pub(super) baggage: Vec<(String, Pattern)>,
    pub(super) path: Option<PathPattern>,
    intercept: Intercept,
}

impl Compiled {
    /// The intercept's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The entry as written.
    pub fn intercept(&self) -> &Intercept {
        &self.intercept
    }

    /// Takes over compiled patterns. `names` assigns ids to its headers.
    pub(super) fn new(
        name: String,
        intercept: Intercept,
        patterns: Patterns,
        names: &mut HeaderNames,
    ) -> Self {
        let headers = intercept
            .headers
            .iter()
            .map(|header| names.id(&header.name));
        let keys = intercept.baggage.iter().map(|member| member.key.clone());
        Self {
            headers: headers.zip(patterns.headers).collect(),
            baggage: keys.zip(patterns.baggage).collect(),
            path: patterns.path,
            name,
            intercept,
        }
    }

    pub(crate) fn header_id(&self, index: usize) -> Option<HeaderId> {
        self.headers.get(index).map(|(id, _)| *id)
    }

    pub(crate) fn path_rank(&self) -> path::Rank {
        self.path
            .as_ref()
            .map_or(path::Rank::None, PathPattern::rank)
    }

    /// The number of header and baggage conditions.
    pub(crate) fn conditions(&self) -> usize {
        self.headers.len().saturating_add(self.baggage.len())
    }

    /// The sort key, smaller wins: more conditions, then the narrower path, then the name.
    fn precedence(&self) -> impl Ord + '_ {
        (Reverse(self.conditions()), self.path_rank(), &self.name)
    }
}

/// Orders by precedence, smaller wins.
///
/// Names are unique, so no two intercepts of a matcher are equal.
impl Ord for Compiled {
    fn cmp(&self, other: &Self) -> Ordering {
        self.precedence().cmp(&other.precedence())
    }
}

impl PartialOrd for Compiled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Compiled {}

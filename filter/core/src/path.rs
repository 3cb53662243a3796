//! Path conditions and their precedence.

use std::cmp::Reverse;

use crate::budget::Fuel;
use crate::config::MatchPath;
use crate::pattern::{self, InvalidPattern, Program};

#[derive(Debug)]
pub(crate) enum PathPattern {
    Equal(String),
    Prefix(String),
    Regex(Program),
}

/// The rank of a path condition, smaller wins: kinds in this order, longer prefixes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Equal,
    Regex,
    Prefix(Reverse<usize>),
    None,
}

impl PathPattern {
    pub(crate) fn new(path: &MatchPath) -> Result<Self, InvalidPattern> {
        Ok(match path {
            MatchPath::Equal(text) => Self::Equal(text.clone()),
            MatchPath::Prefix(text) => Self::Prefix(text.clone()),
            MatchPath::Regex(pattern) => Self::Regex(pattern::path(pattern)?),
        })
    }

    pub(crate) fn rank(&self) -> Rank {
        match self {
            Self::Equal(_) => Rank::Equal,
            Self::Regex(_) => Rank::Regex,
            Self::Prefix(text) => Rank::Prefix(Reverse(text.len())),
        }
    }

    pub(crate) fn matches(&self, path: &[u8], fuel: &Fuel) -> bool {
        match self {
            Self::Equal(text) => path == text.as_bytes(),
            Self::Prefix(text) => path.starts_with(text.as_bytes()),
            Self::Regex(program) => program.matches(path, fuel),
        }
    }
}

/// Cuts a request target before its query string or fragment.
pub(crate) fn without_query(target: &[u8]) -> &[u8] {
    target
        .split(|byte| matches!(byte, b'?' | b'#'))
        .next()
        .unwrap_or(target)
}

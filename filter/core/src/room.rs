//! Applies the limits over all entries of a workload.
//!
//! The budget for regexes, and the number of entries per owner.

use crate::budget::{COMPILE_BUDGET, MAX_PER_OWNER};
use crate::config::{Intercept, MatchPath, Rejected};
use crate::interner::Interner;
use crate::invalid::InvalidIntercept;
use crate::pattern;

/// The entries over a limit, with the reasons of [`crate::Matcher::compile`]. Compiles nothing.
pub fn left_out(intercepts: &[(String, Intercept)]) -> Vec<Rejected> {
    let shut_out = intercepts.iter().zip(shut_out(intercepts));
    shut_out
        .filter_map(|((name, _), error)| Some(Rejected::new(name, &error?)))
        .collect()
}

/// The error of each entry that is over a limit, by position.
///
/// Each owner's first entry goes before each owner's second, and so on: the owner with most entries loses first.
pub(crate) fn shut_out(intercepts: &[(String, Intercept)]) -> Vec<Option<InvalidIntercept>> {
    let mut owners = Interner::default();
    let mut counts = Vec::new();
    let mut ranks = Vec::with_capacity(intercepts.len());
    for (_, intercept) in intercepts {
        let owner = owners.intern(&intercept.owner);
        if owner == counts.len() {
            counts.push(0_usize);
        }
        if let Some(count) = counts.get_mut(owner) {
            ranks.push(*count);
            *count = count.saturating_add(1);
        }
    }
    let mut shut_out = Vec::new();
    shut_out.resize_with(intercepts.len(), || Some(InvalidIntercept::TooManyOfOwner));
    let mut left = COMPILE_BUDGET;
    for round in 0..MAX_PER_OWNER {
        let entries = intercepts.iter().zip(&ranks).zip(&mut shut_out);
        for (((_, intercept), _), slot) in entries.filter(|((_, rank), _)| **rank == round) {
            let rest = left.checked_sub(cost(intercept));
            left = rest.unwrap_or(left);
            *slot = rest.is_none().then_some(InvalidIntercept::TooLargeTogether);
        }
    }
    shut_out
}

fn cost(intercept: &Intercept) -> usize {
    let headers = intercept.headers.iter().map(|header| &header.value);
    let baggage = intercept.baggage.iter().map(|member| &member.value);
    let path = match &intercept.path {
        Some(MatchPath::Regex(pattern)) => Some(pattern),
        _ => None,
    };
    let patterns = headers.chain(baggage).chain(path);
    patterns.fold(0, |sum: usize, pattern| {
        sum.saturating_add(pattern::cost(pattern))
    })
}

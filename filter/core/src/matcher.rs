//! Compile and decide: which intercept, if any, a request belongs to.
//!
//! An intercept is filed under *one* of its conditions, the cheapest to look up: an exact header value, else an exact baggage value, else a regex, else under
//! "everybody" (`index`). A decision looks up what the request names, then checks the few candidates in full, best first.
//! What an intercept means is [`Matcher::check`]; the tables only spare calls of it.

mod baggage;
mod compiled;
mod facts;
mod header;
mod index;

use std::collections::BinaryHeap;

pub use self::compiled::Compiled;
use self::facts::HeaderNames;
pub(crate) use self::facts::{Facts, HeaderId};
use self::index::Index;
use crate::budget::Fuel;
use crate::config::{Config, Rejected};
use crate::limits::{self, is_lease_too_long};
use crate::path;
use crate::request::{Request, is_mirror, is_probe_exempt};
use crate::room;
use crate::target;

/// All intercepts of a workload, ready to decide.
#[derive(Debug, Default)]
pub struct Matcher {
    /// In order of precedence: the first that matches wins.
    intercepts: Vec<Compiled>,
    index: Index,
    /// Every header name that any decision may ask for, at its [`HeaderId`].
    header_names: Vec<String>,
    max_lease_seconds: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'m> {
    /// The intercept that takes it; `None`: it stays in the cluster.
    pub intercept: Option<&'m Compiled>,
    /// Why it stays in the cluster although an intercept matches.
    pub bypass: Option<Bypass>,
    /// Would an intercept have taken it, had its lease not ended?
    pub expired: bool,
}

/// Why the cluster answers a request although an intercept matches it. No other intercept is tried: it would get what its developer never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// The request has been through this intercept (`x-intercept-via`): the developer's server sent it back into the mesh.
    Loop,
    /// The tunnel cannot carry its `:path` or `:authority` byte for byte, see [`crate::target`].
    Target,
    /// The decision would take more than [`crate::budget::DECISION_BUDGET`] steps.
    Budget,
}

/// The first condition of an intercept that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Of `headers`, the one at this index.
    Header(usize),
    /// Of `baggage`, the one at this index.
    Baggage(usize),
    /// The kubelet asks, and there is no condition on headers or baggage.
    Probe,
    /// It is a mirrored copy.
    Mirror,
    /// The path's.
    Path,
    /// It came in on another port.
    Port,
    /// The lease is over.
    Expired,
    /// The lease ends later than the operator allows, see [`is_lease_too_long`].
    LeaseTooLong,
}

impl Matcher {
    /// Compiles what [`crate::parse`] read. An entry that the filter cannot or must not run is left out and named in the second part.
    pub fn compile(config: Config) -> (Self, Vec<Rejected>) {
        let Config {
            limits, intercepts, ..
        } = config;
        let mut rejected = Vec::new();
        let mut compiled = Vec::with_capacity(intercepts.len());
        let mut names = HeaderNames::new();
        let shut_out = room::shut_out(&intercepts);
        for ((name, intercept), shut_out) in intercepts.into_iter().zip(shut_out) {
            let patterns = match shut_out {
                Some(error) => Err(error),
                None => limits::compile(&name, &intercept, &limits),
            };
            match patterns {
                Ok(patterns) => {
                    compiled.push(Compiled::new(name, intercept, patterns, &mut names));
                }
                Err(error) => rejected.push(Rejected::new(&name, &error)),
            }
        }
        // The heap's own sort: `sort_unstable` would bring 2 kB more code into the module.
        let compiled = BinaryHeap::from(compiled).into_sorted_vec();
        let header_names = names.into_names();
        let matcher = Self {
            index: Index::build(&compiled, header_names.len()),
            intercepts: compiled,
            header_names,
            max_lease_seconds: limits.max_lease_seconds,
        };
        (matcher, rejected)
    }

    /// All intercepts, the one with the highest precedence first.
    pub fn intercepts(&self) -> &[Compiled] {
        &self.intercepts
    }

    /// How many intercepts can match at this time, in seconds since the epoch: their leases run, and end no later than the operator allows.
    pub fn active(&self, now: u64) -> usize {
        let leases = self.intercepts.iter().map(|one| one.intercept().expires);
        leases
            .filter(|expires| self.check_lease(*expires, now).is_ok())
            .count()
    }

    /// Which intercept takes the request?
    pub fn decide(&self, request: &impl Request) -> Outcome<'_> {
        let mut outcome = Outcome {
            intercept: None,
            bypass: None,
            expired: false,
        };
        let Some(facts) = self.first_look(request) else {
            return outcome;
        };
        for candidate in self.index.candidates(&facts) {
            let Some(compiled) = self.intercepts.get(candidate) else {
                continue;
            };
            let checked = self.check(compiled, &facts);
            let checked = checked.map(|()| self.bypass(compiled, &facts));
            if facts.fuel.is_spent() {
                outcome.bypass = Some(Bypass::Budget);
                break;
            }
            match checked {
                Ok(bypass) => {
                    outcome.bypass = bypass;
                    outcome.intercept = bypass.is_none().then_some(compiled);
                    break;
                }
                Err(miss) => outcome.expired |= miss == Miss::Expired,
            }
        }
        outcome
    }

    /// Does the request meet every condition? Cheapest first, and nothing is asked of the request that an earlier answer made needless.
    pub(crate) fn check<R: Request>(
        &self,
        compiled: &Compiled,
        facts: &Facts<R>,
    ) -> Result<(), Miss> {
        for (index, (id, pattern)) in compiled.headers.iter().enumerate() {
            let met = facts
                .header(*id)
                .is_some_and(|value| match facts.is_pseudo(*id) {
                    true => pattern.matches_within(value, &facts.fuel),
                    false => header::matches(pattern, value, &facts.fuel),
                });
            met.then_some(()).ok_or(Miss::Header(index))?;
        }
        for (index, (key, pattern)) in compiled.baggage.iter().enumerate() {
            let met = facts
                .header(HeaderId::BAGGAGE)
                .is_some_and(|value| baggage::matches(key, pattern, value, &facts.fuel));
            met.then_some(()).ok_or(Miss::Baggage(index))?;
        }
        if compiled.conditions() == 0
            && facts
                .header(HeaderId::USER_AGENT)
                .is_some_and(is_probe_exempt)
        {
            return Err(Miss::Probe);
        }
        if facts.header(HeaderId::AUTHORITY).is_some_and(is_mirror) {
            return Err(Miss::Mirror);
        }
        if let Some(path) = &compiled.path {
            let met = facts
                .header(HeaderId::PATH)
                .is_some_and(|target| path.matches(path::without_query(target), &facts.fuel));
            met.then_some(()).ok_or(Miss::Path)?;
        }
        if !facts.is_port(compiled.intercept().port) {
            return Err(Miss::Port);
        }
        self.check_lease(compiled.intercept().expires, facts.now())
    }

    /// Must the cluster answer a request that this intercept matches? Asked after the match only: an unmatched request pays nothing for it.
    pub(crate) fn bypass<R: Request>(
        &self,
        compiled: &Compiled,
        facts: &Facts<R>,
    ) -> Option<Bypass> {
        let is_back = |via| header::has_member(via, compiled.name());
        if facts.header(HeaderId::VIA).is_some_and(is_back) {
            return Some(Bypass::Loop);
        }
        let carries = facts
            .header(HeaderId::PATH)
            .is_some_and(target::carries_path)
            && facts
                .header(HeaderId::AUTHORITY)
                .is_none_or(target::carries_authority);
        (!carries).then_some(Bypass::Target)
    }

    fn check_lease(&self, expires: u64, now: u64) -> Result<(), Miss> {
        if expires <= now {
            return Err(Miss::Expired);
        }
        match is_lease_too_long(expires, now, self.max_lease_seconds) {
            true => Err(Miss::LeaseTooLong),
            false => Ok(()),
        }
    }

    /// Asks for the headers under which intercepts are filed. `None`: none of them is there, so nothing can match. Nearly every request ends here, so nothing is allocated for it:
    /// only if one of them is there, or an intercept needs none, do the answers move into the memo that [`Facts`] is.
    fn first_look<'r, R: Request>(&'r self, request: &'r R) -> Option<Facts<'r, R>> {
        let mut present = Vec::new();
        for id in self.index.headers() {
            let name = id.name(&self.header_names)?;
            present.extend(request.header(name).map(|value| (id, value)));
        }
        if present.is_empty() && !self.index.needs_no_header() {
            return None;
        }
        let facts = self.facts(request, Fuel::new());
        let mut present = present.into_iter().peekable();
        for id in self.index.headers() {
            let value = present.next_if(|(found, _)| *found == id);
            facts.learn(id, value.map(|(_, value)| value));
        }
        Some(facts)
    }

    /// Nothing is asked yet.
    pub(crate) fn facts<'r, R: Request>(&'r self, request: &'r R, fuel: Fuel) -> Facts<'r, R> {
        Facts::new(request, &self.header_names, fuel)
    }
}

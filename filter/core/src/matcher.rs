//! Decides which intercept takes a request, if any.
//!
//! An intercept is indexed by *one* of its conditions, the cheapest to look up: an exact header value, else an exact baggage value, else a regex, else as one
//! for all requests (`index`). A decision looks up the values in the request, then checks the few candidates in full, best first.
//! [`Matcher::check`] alone defines what an intercept matches; the tables only save calls of it.

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

/// All compiled intercepts of a workload.
#[derive(Debug, Default)]
pub struct Matcher {
    /// In order of precedence: the first match wins.
    intercepts: Vec<Compiled>,
    index: Index,
    /// Every header name that a decision may look up, by [`HeaderId`].
    header_names: Vec<String>,
    max_lease_seconds: u64,
}

/// The outcome of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'m> {
    /// The intercept that takes the request; `None` if it stays in the cluster.
    pub intercept: Option<&'m Compiled>,
    /// Why the request stays in the cluster although an intercept matches.
    pub bypass: Option<Bypass>,
    /// Would an intercept with an expired lease have taken the request?
    pub expired: bool,
}

/// Why the cluster answers a request although an intercept matches.
///
/// The decision tries no other intercept: that one would get requests that its developer never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// The request has passed this intercept before (`x-intercept-via`).
    ///
    /// The developer's server sent it back into the mesh.
    Loop,
    /// The tunnel cannot carry `:path` or `:authority` byte for byte, see [`crate::target`].
    Target,
    /// The decision exceeds [`crate::budget::DECISION_BUDGET`].
    Budget,
}

/// The first condition of an intercept that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The header condition at this index.
    Header(usize),
    /// The baggage condition at this index.
    Baggage(usize),
    /// A kubelet's probe, and the intercept has no header or baggage conditions.
    Probe,
    /// A mirrored copy.
    Mirror,
    /// The path condition.
    Path,
    /// Another port.
    Port,
    /// The lease has expired.
    Expired,
    /// The lease exceeds the operator's limit, see [`is_lease_too_long`].
    LeaseTooLong,
}

impl Matcher {
    /// Compiles a parsed configuration.
    ///
    /// Invalid and forbidden entries are left out and returned as rejected.
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
        // Not `sort_unstable`, which would add 2 kB of code to the module.
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

    /// All intercepts in order of precedence.
    pub fn intercepts(&self) -> &[Compiled] {
        &self.intercepts
    }

    /// The number of intercepts whose lease is valid at this time, in seconds since the epoch.
    pub fn active(&self, now: u64) -> usize {
        let leases = self.intercepts.iter().map(|one| one.intercept().expires);
        leases
            .filter(|expires| self.check_lease(*expires, now).is_ok())
            .count()
    }

    /// Decides which intercept takes the request.
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

    /// Checks every condition, cheapest first. Looks up only what the earlier results leave open.
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

    /// Must the cluster answer a request that this intercept matches?
    ///
    /// Checked only after the match, so that unmatched requests do not pay for it.
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

    /// Looks up the indexed headers.
    ///
    /// `None` if nothing can match: no such header is present, and every intercept needs one.
    ///
    /// Nearly every request ends here, so this allocates nothing for it: otherwise the values move into the cache in [`Facts`].
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

    /// Facts without any values so far.
    pub(crate) fn facts<'r, R: Request>(&'r self, request: &'r R, fuel: Fuel) -> Facts<'r, R> {
        Facts::new(request, &self.header_names, fuel)
    }
}

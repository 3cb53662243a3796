//! Compile and decide: which intercept, if any, a request belongs to.
//!
//! An intercept is filed under *one* of its conditions, the cheapest to look up: an exact header value, else an exact baggage value, else a regex, else under
//! "everybody". A decision looks up what the request names, then checks the few candidates in full, best first.

mod baggage;
mod header;
mod index;
mod path;

use std::cell::OnceCell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use self::index::Index;
use self::path::PathPattern;
use crate::config::{Config, Intercept, Rejected};
use crate::limits::validate;
use crate::pattern::{InvalidPattern, Pattern};
use crate::request::Request;

/// How far the clocks of two nodes may be apart before a lease of the longest length, given by one, looks too long to the other. In seconds.
const CLOCK_SKEW: u64 = 60;

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

/// One intercept, compiled.
#[derive(Debug)]
pub struct Compiled {
    name: String,
    headers: Vec<(HeaderId, Condition)>,
    /// By key.
    baggage: Vec<(String, Condition)>,
    path: Option<PathPattern>,
    intercept: Intercept,
}

/// A header name's place among those of a matcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeaderId(usize);

/// What the value of a header or of a baggage member must be.
#[derive(Debug)]
pub(crate) struct Condition(Pattern);

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'m> {
    /// The intercept that takes it; `None`: it stays in the cluster.
    pub intercept: Option<&'m Compiled>,
    /// Would an intercept have taken it, had its lease not ended?
    pub expired: bool,
}

/// The first condition of an intercept that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    Header(usize),
    Baggage(usize),
    Probe,
    Mirror,
    Path,
    Port,
    Expired,
    LeaseTooLong,
}

impl Compiled {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was written.
    pub fn intercept(&self) -> &Intercept {
        &self.intercept
    }

    fn new(
        name: String,
        intercept: Intercept,
        names: &mut HeaderNames,
    ) -> Result<Self, InvalidPattern> {
        let headers = intercept
            .headers
            .iter()
            .map(|header| Ok((names.id(&header.name), Condition::new(&header.value)?)));
        let baggage = intercept
            .baggage
            .iter()
            .map(|member| Ok((member.key.clone(), Condition::new(&member.value)?)));
        Ok(Self {
            headers: headers.collect::<Result<_, _>>()?,
            baggage: baggage.collect::<Result<_, _>>()?,
            path: intercept.path.as_ref().map(PathPattern::new).transpose()?,
            name,
            intercept,
        })
    }

    pub(crate) fn header_id(&self, index: usize) -> Option<HeaderId> {
        self.headers.get(index).map(|(id, _)| *id)
    }

    pub(crate) fn path_rank(&self) -> path::Rank {
        self.path
            .as_ref()
            .map_or(path::Rank::None, PathPattern::rank)
    }

    /// How many conditions on headers and baggage it has.
    pub(crate) fn conditions(&self) -> usize {
        self.headers.len().saturating_add(self.baggage.len())
    }

    /// Smaller wins: more conditions, then the narrower path, then the name.
    fn precedence(&self) -> impl Ord + '_ {
        (Reverse(self.conditions()), self.path_rank(), &self.name)
    }
}

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

impl Condition {
    fn new(pattern: &str) -> Result<Self, InvalidPattern> {
        Pattern::value(pattern).map(Self)
    }

    fn is_regex(&self) -> bool {
        matches!(self.0, Pattern::Regex(_))
    }
}

impl HeaderId {
    const USER_AGENT: Self = Self(0);
    const AUTHORITY: Self = Self(1);
    pub(crate) const PATH: Self = Self(2);
    const BAGGAGE: Self = Self(3);
    /// The names of the constants above, in their order.
    const FIXED: [&str; 4] = ["user-agent", ":authority", ":path", "baggage"];
}

/// Gives each distinct header name a number.
struct HeaderNames {
    ids: HashMap<String, usize>,
    names: Vec<String>,
}

impl HeaderNames {
    fn new() -> Self {
        let mut names = Self {
            ids: HashMap::new(),
            names: Vec::new(),
        };
        for name in HeaderId::FIXED {
            names.id(name);
        }
        names
    }

    fn id(&mut self, name: &str) -> HeaderId {
        let name = header_key(name);
        if let Some(id) = self.ids.get(&name) {
            return HeaderId(*id);
        }
        let id = self.names.len();
        self.names.push(name.clone());
        self.ids.insert(name, id);
        HeaderId(id)
    }
}

/// The one name under which a header is asked for: lower case, and `:authority` for `host`, which Envoy takes for the same.
pub fn header_key(name: &str) -> String {
    match name.to_ascii_lowercase() {
        name if name == "host" => ":authority".to_owned(),
        name => name,
    }
}

/// Is an intercept without header and baggage conditions blind to this user agent? The kubelet's probes decide whether a pod lives; a developer's server must not.
pub fn is_probe_exempt(user_agent: &[u8]) -> bool {
    user_agent.starts_with(b"kube-probe/")
}

impl Matcher {
    /// Compiles what [`crate::parse`] read. An entry that the filter cannot or must not run is left out and named in the second part.
    pub fn compile(config: Config) -> (Self, Vec<Rejected>) {
        let Config { limits, intercepts } = config;
        let mut rejected = Vec::new();
        let mut compiled = Vec::with_capacity(intercepts.len());
        let mut names = HeaderNames::new();
        for (name, intercept) in intercepts {
            match validate(&name, &intercept, &limits) {
                // Every pattern has just been compiled once, by `validate`: nothing is lost here.
                Ok(()) => compiled.extend(Compiled::new(name, intercept, &mut names)),
                Err(error) => rejected.push(Rejected::new(&name, &error)),
            }
        }
        // The heap's own sort: `sort_unstable` would bring 2 kB more code into the module.
        let compiled = BinaryHeap::from(compiled).into_sorted_vec();
        let index = Index::build(&compiled, names.names.len());
        let matcher = Self {
            intercepts: compiled,
            index,
            header_names: names.names,
            max_lease_seconds: limits.max_lease_seconds,
        };
        (matcher, rejected)
    }

    /// All intercepts, the one with the highest precedence first.
    pub fn intercepts(&self) -> &[Compiled] {
        &self.intercepts
    }

    /// Which intercept takes the request?
    pub fn decide(&self, request: &impl Request) -> Outcome<'_> {
        let mut outcome = Outcome {
            intercept: None,
            expired: false,
        };
        let Some(facts) = self.first_look(request) else {
            return outcome;
        };
        for candidate in self.index.candidates(&facts) {
            let Some(compiled) = self.intercepts.get(candidate) else {
                continue;
            };
            match self.check(compiled, &facts) {
                Ok(()) => {
                    outcome.intercept = Some(compiled);
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
        for (index, (id, condition)) in compiled.headers.iter().enumerate() {
            let met = facts
                .header(*id)
                .is_some_and(|value| header::matches(&condition.0, value));
            met.then_some(()).ok_or(Miss::Header(index))?;
        }
        for (index, (key, condition)) in compiled.baggage.iter().enumerate() {
            let met = facts
                .header(HeaderId::BAGGAGE)
                .is_some_and(|value| baggage::matches(key, &condition.0, value));
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
                .is_some_and(|target| path.matches(path::without_query(target)));
            met.then_some(()).ok_or(Miss::Path)?;
        }
        if !facts.request.is_port(compiled.intercept.port) {
            return Err(Miss::Port);
        }
        self.check_lease(compiled.intercept.expires, facts.now())
    }

    /// The longest lease is held against the time left, not against `created`: a renewal moves `expires` alone, and anyone could write `created`.
    fn check_lease(&self, expires: u64, now: u64) -> Result<(), Miss> {
        match expires.checked_sub(now) {
            None | Some(0) => Err(Miss::Expired),
            Some(left) if left > self.max_lease_seconds.saturating_add(CLOCK_SKEW) => {
                Err(Miss::LeaseTooLong)
            }
            Some(_) => Ok(()),
        }
    }

    /// Asks for the headers under which intercepts are filed. `None`: none of them is there, so nothing can match. That is what becomes of nearly every request,
    /// hence without any memory of it.
    fn first_look<'r, R: Request>(&'r self, request: &'r R) -> Option<Facts<'r, R>> {
        let mut present = Vec::new();
        for id in self.index.headers() {
            let name = self.header_names.get(id.0)?;
            present.extend(request.header(name).map(|value| (id, value)));
        }
        if present.is_empty() && !self.index.needs_no_header() {
            return None;
        }
        let facts = self.facts(request);
        let mut present = present.into_iter().peekable();
        for id in self.index.headers() {
            let value = present.next_if(|(found, _)| *found == id);
            if let Some(fact) = facts.headers.get(id.0) {
                let _ = fact.set(value.map(|(_, value)| value));
            }
        }
        Some(facts)
    }

    pub(crate) fn facts<'r, R: Request>(&'r self, request: &'r R) -> Facts<'r, R> {
        Facts {
            request,
            headers: vec![OnceCell::new(); self.header_names.len()],
            names: &self.header_names,
            now: OnceCell::new(),
        }
    }
}

/// Is a request to this authority a mirrored one? Envoy and Istio send a copy of a mirrored request with `-shadow` behind its host name; its answer goes nowhere, so a developer's machine must not run it too.
pub fn is_mirror(authority: &[u8]) -> bool {
    // The last colon: an IPv6 address in brackets has some of its own.
    let host = authority
        .rsplitn(2, |byte| *byte == b':')
        .last()
        .unwrap_or(authority);
    host.ends_with(b"-shadow") || authority.ends_with(b"-shadow")
}

/// What is known of one request so far: every question goes to the request at most once.
pub(crate) struct Facts<'r, R> {
    request: &'r R,
    names: &'r [String],
    headers: Vec<OnceCell<Option<Vec<u8>>>>,
    now: OnceCell<u64>,
}

impl<'r, R: Request> Facts<'r, R> {
    pub(crate) fn header(&self, HeaderId(id): HeaderId) -> Option<&[u8]> {
        let ask = || {
            self.names
                .get(id)
                .and_then(|name| self.request.header(name))
        };
        self.headers.get(id)?.get_or_init(ask).as_deref()
    }

    fn now(&self) -> u64 {
        *self.now.get_or_init(|| self.request.now())
    }
}

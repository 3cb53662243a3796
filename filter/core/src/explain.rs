//! Explains a decision: which intercept takes a request, and why each other one does not.

use crate::budget::Fuel;
use crate::matcher::{Bypass, Compiled, Facts, HeaderId, Matcher, Miss};
use crate::request::Request;

/// The verdict on one intercept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered<'m> {
    /// The intercept's name.
    pub intercept: &'m str,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason, a sentence without a full stop.
    pub reason: String,
}

/// The kind of verdict on one intercept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the request.
    Wins,
    /// It matches with the highest precedence, but the cluster answers.
    Bypassed,
    /// It matches, but another one has precedence.
    Outranked,
    /// The request does not meet one of its conditions.
    NoMatch,
    /// The request meets its conditions, but its lease has expired.
    Expired,
    /// The configuration's entry was rejected.
    Rejected,
}

impl Verdict {
    /// The word that `injector explain` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wins => "wins",
            Self::Bypassed => "bypassed",
            Self::Outranked => "outranked",
            Self::NoMatch => "no match",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }
}

impl Matcher {
    /// All intercepts in order of precedence, each with its verdict.
    ///
    /// The winner is the one that [`Matcher::decide`] returns; if it returns none, the bypassed one is the reason.
    pub fn explain(&self, request: &impl Request) -> Vec<Considered<'_>> {
        // Steps are counted as in a decision, which checks other intercepts than this function.
        let is_spent = self.decide(request).bypass == Some(Bypass::Budget);
        let facts = self.facts(request, Fuel::unlimited());
        let mut winner: Option<&Compiled> = None;
        let explain = |compiled| {
            let (verdict, reason) = match (self.check(compiled, &facts), winner) {
                (Ok(()), _) if is_spent => (Verdict::Bypassed, describe_bypass(Bypass::Budget)),
                (Ok(()), None) => {
                    winner = Some(compiled);
                    match self.bypass(compiled, &facts) {
                        None => (Verdict::Wins, "all its conditions match".to_owned()),
                        Some(bypass) => (Verdict::Bypassed, describe_bypass(bypass)),
                    }
                }
                (Ok(()), Some(winner)) => (
                    Verdict::Outranked,
                    format!("matches too, but {}", why_first(winner, compiled)),
                ),
                (Err(Miss::Expired), _) => (Verdict::Expired, "its lease is over".to_owned()),
                (Err(miss), _) => (Verdict::NoMatch, describe(compiled, miss, &facts)),
            };
            Considered {
                intercept: compiled.name(),
                verdict,
                reason,
            }
        };
        self.intercepts().iter().map(explain).collect()
    }
}

fn why_first(winner: &Compiled, other: &Compiled) -> String {
    let name = winner.name();
    if winner.conditions() > other.conditions() {
        format!("{name} has more conditions")
    } else if winner.path_rank() != other.path_rank() {
        format!(
            "the path condition of {name} goes first (equal, regex, longer prefix, shorter prefix, none)"
        )
    } else {
        format!("{name} comes first by name")
    }
}

fn describe_bypass(bypass: Bypass) -> String {
    let reason = match bypass {
        Bypass::Loop => "the request has been through it already (x-intercept-via)",
        Bypass::Budget => "the regexes here take too long to try on this request",
        Bypass::Target => "its tunnel cannot carry this path or authority",
    };
    format!("matches, but {reason}: the cluster answers")
}

fn describe<R: Request>(compiled: &Compiled, miss: Miss, facts: &Facts<R>) -> String {
    let intercept = compiled.intercept();
    match miss {
        Miss::Header(index) => match (intercept.headers.get(index), compiled.header_id(index)) {
            (Some(wanted), Some(id)) => match facts.header(id) {
                Some(found) => {
                    let found = shorten(found);
                    format!(
                        "header {}: `{found}` does not match `{}`",
                        wanted.name, wanted.value
                    )
                }
                None => format!(
                    "header {}: absent, expected `{}`",
                    wanted.name, wanted.value
                ),
            },
            _ => String::new(),
        },
        Miss::Baggage(index) => match intercept.baggage.get(index) {
            Some(wanted) => format!(
                "baggage {}: no member matches `{}`",
                wanted.key, wanted.value
            ),
            None => String::new(),
        },
        Miss::Probe => {
            "a probe of the kubelet never matches an intercept of all requests".to_owned()
        }
        Miss::Mirror => "a mirrored request (authority ending in -shadow) never matches".to_owned(),
        Miss::Path => {
            let path = shorten(facts.header(HeaderId::PATH).unwrap_or_default());
            format!("path: `{path}` does not match {}", describe_path(compiled))
        }
        Miss::Port => format!("port: the request is not for port {}", intercept.port),
        Miss::Expired => String::new(),
        Miss::LeaseTooLong => {
            "its lease ends later than the operator allows (limits.max_lease_seconds)".to_owned()
        }
    }
}

fn describe_path(compiled: &Compiled) -> String {
    use crate::config::MatchPath::{Equal, Prefix, Regex};
    match &compiled.intercept().path {
        Some(Equal(text)) => format!("equal `{text}`"),
        Some(Prefix(text)) => format!("prefix `{text}`"),
        Some(Regex(text)) => format!("regex `{text}`"),
        None => "any".to_owned(),
    }
}

/// Shortens a value for display.
fn shorten(value: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(value);
    match text
        .char_indices()
        .nth(SHOWN)
        .and_then(|(end, _)| text.get(..end))
    {
        Some(start) => format!("{start}…"),
        None => text.into_owned(),
    }
}

//! The contract for responses (`docs/reference.md`, Fallback).
//!
//! Judges each by what its developer and the relay did meanwhile. Sends nothing.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A GET with a complete response.
    Get,
    /// A POST with a complete response.
    Post,
    /// A unary gRPC call.
    Call,
    /// A bidirectional gRPC stream.
    Talk,
    /// Server-sent events.
    Events,
    /// A WebSocket.
    Socket,
}

impl Kind {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Call => "gRPC unary",
            Self::Talk => "gRPC stream",
            Self::Events => "SSE",
            Self::Socket => "WebSocket",
        }
    }

    /// Is it safe (RFC 9110 section 9.2.1)?
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Events | Self::Socket)
    }
}

/// The result of a request as the client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A complete response with the right content.
    ///
    /// `marks` are `x-intercept` and `x-intercept-served-by`; `None` if the client does not expose headers.
    Answered {
        by: String,
        marks: Option<[Option<String>; 2]>,
    },
    /// A status other than 200 (for gRPC, the HTTP equivalent).
    ///
    /// `is_explained`: with `x-intercept-error`.
    Refused {
        status: u16,
        is_explained: bool,
        text: String,
    },
    /// The response broke off after its head.
    Broken(String),
    /// No response, a wrong one, or a timeout.
    Failed(String),
}

/// The state of a developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No intercept, or one without a tunnel.
    Away,
    /// The command is running but not live.
    Coming,
    /// The command is live.
    Live,
    /// The command got a signal to end, or was killed.
    Leaving,
}

/// The phases during a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    pub away: bool,
    pub coming: bool,
    pub live: bool,
    pub leaving: bool,
}

impl Met {
    fn add(&mut self, phase: Phase) {
        match phase {
            Phase::Away => self.away = true,
            Phase::Coming => self.coming = true,
            Phase::Live => self.live = true,
            Phase::Leaving => self.leaving = true,
        }
    }

    fn only_live(self) -> bool {
        self.live && !(self.away || self.coming || self.leaving)
    }

    fn only_away(self) -> bool {
        self.away && !(self.live || self.coming || self.leaving)
    }
}

/// The phases of a developer over time.
///
/// Keeps only the newest: no request except the held ones is older.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<VecDeque<(Instant, Phase)>>);

impl Timeline {
    const KEPT: usize = 256;

    /// Starts a phase now.
    pub fn mark(&self, phase: Phase) {
        let mut marks = self.0.lock().expect("no panic");
        marks.push_back((Instant::now(), phase));
        if marks.len() > Self::KEPT {
            marks.pop_front();
        }
    }

    /// The phases between two moments.
    pub fn during(&self, from: Instant, to: Instant) -> Met {
        let marks = self.0.lock().expect("no panic");
        let mut met = Met::default();
        let before = marks.iter().rev().find(|(at, _)| *at <= from);
        met.add(before.map_or(Phase::Away, |(_, phase)| *phase));
        for (_, phase) in marks.iter().filter(|(at, _)| *at > from && *at <= to) {
            met.add(*phase);
        }
        met
    }
}

/// A restart of a relay: the time in which tunnels may be down, and whether it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    pub began: Instant,
    pub until: Option<Instant>,
    pub is_killed: bool,
}

/// All restarts of a relay.
#[derive(Debug, Default)]
pub struct Breaks(Mutex<Vec<Break>>);

impl Breaks {
    /// The relay goes down now.
    pub fn begin(&self, is_killed: bool) {
        self.0.lock().expect("no panic").push(Break {
            began: Instant::now(),
            until: None,
            is_killed,
        });
    }

    /// Its tunnels are up again.
    pub fn end(&self) {
        if let Some(last) = self.0.lock().expect("no panic").last_mut() {
            last.until = Some(Instant::now());
        }
    }

    /// The restarts between two moments.
    pub fn during(&self, from: Instant, to: Instant) -> Vec<Break> {
        let all = self.0.lock().expect("no panic");
        let met = |one: &&Break| one.began <= to && one.until.is_none_or(|until| until >= from);
        all.iter().filter(met).copied().collect()
    }

    /// The number of restarts.
    pub fn count(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

/// The contract's verdict on an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Correct: the version in the cluster answered.
    Cluster,
    /// Correct: the developer's server answered.
    Developer,
    /// The cluster answered an unsafe request, as it does while a tunnel has missed a beat.
    ///
    /// The relay counts those.
    Suspect,
    /// An error that the contract allows.
    Named(&'static str),
    /// Anything else.
    Deviation(&'static str),
}

/// A deviation from the contract, except after a missed beat of a tunnel.
pub const IN_PLACE: &str = "the cluster answered in the place of a live developer";

/// Errors that the contract allows.
pub const EXPLAINED: &str =
    "502 with x-intercept-error (gRPC: 13): not safe, under way when its side broke";
pub const BROKE_OFF: &str = "answer broke off: under way when its side broke";
pub const KILLED: &str = "503 of Envoy: not safe, under way when the relay went, and no sidecar with it that could say so";

/// Judges an unmatched request.
pub fn judge_unmatched(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Answered { by, .. } if by != "app" => {
            Verdict::Deviation("unmatched: not answered by the cluster")
        }
        Outcome::Answered {
            marks: Some([None, None]) | None,
            ..
        } => Verdict::Cluster,
        Outcome::Answered { .. } => Verdict::Deviation("unmatched: has a header of ours"),
        Outcome::Refused { .. } => Verdict::Deviation("unmatched: an error"),
        Outcome::Broken(_) => Verdict::Deviation("unmatched: broke off"),
        Outcome::Failed(_) => Verdict::Deviation("unmatched: no answer"),
    }
}

/// Judges a request that `name` intercepts; the developer's server has that name, too.
pub fn judge(kind: Kind, name: &str, met: Met, breaks: &[Break], outcome: &Outcome) -> Verdict {
    let may_break = met.leaving || !breaks.is_empty();
    match outcome {
        Outcome::Answered { by, marks } => {
            match judge_answer(name, met, breaks, by, marks.as_ref()) {
                Verdict::Deviation(IN_PLACE) if !kind.is_safe() => Verdict::Suspect,
                verdict => verdict,
            }
        }
        Outcome::Refused { .. } if kind.is_safe() => Verdict::Deviation("safe: an error"),
        Outcome::Refused {
            status: 502,
            is_explained: true,
            ..
        } if may_break => Verdict::Named(EXPLAINED),
        Outcome::Refused {
            is_explained: true, ..
        } => Verdict::Deviation("502 although nothing broke"),
        Outcome::Refused { status: 503, .. } if breaks.iter().any(|one| one.is_killed) => {
            Verdict::Named(KILLED)
        }
        Outcome::Refused { .. } => Verdict::Deviation("an error without x-intercept-error"),
        Outcome::Broken(_) if may_break => Verdict::Named(BROKE_OFF),
        Outcome::Broken(_) => Verdict::Deviation("broke off although nothing broke"),
        Outcome::Failed(_) => Verdict::Deviation("no answer, or a wrong one"),
    }
}

fn judge_answer(
    name: &str,
    met: Met,
    breaks: &[Break],
    by: &str,
    marks: Option<&[Option<String>; 2]>,
) -> Verdict {
    let [intercept, served_by] = marks.map_or([None, None], |marks| {
        [marks[0].as_deref(), marks[1].as_deref()]
    });
    if by == name {
        return match (intercept, served_by) {
            _ if met.only_away() => Verdict::Deviation("answered by a developer who had left"),
            (Some(one), Some(other)) if one == name && other == name => Verdict::Developer,
            (None, None) if marks.is_none() => Verdict::Developer,
            _ => Verdict::Deviation("the developer's answer lacks a header of ours"),
        };
    }
    match (by, intercept, served_by) {
        ("app", _, Some(_)) => Verdict::Deviation("the cluster's answer says served-by"),
        ("app", Some(other), None) if other != name => {
            Verdict::Deviation("matched by somebody else's intercept")
        }
        ("app", _, None) if met.only_live() && breaks.is_empty() => Verdict::Deviation(IN_PLACE),
        ("app", _, None) => Verdict::Cluster,
        _ => Verdict::Deviation("answered by somebody else"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Met = Met {
        away: false,
        coming: false,
        live: true,
        leaving: false,
    };
    const LEFT: Met = Met {
        leaving: true,
        ..LIVE
    };

    fn refused(status: u16, is_explained: bool) -> Outcome {
        Outcome::Refused {
            status,
            is_explained,
            text: String::new(),
        }
    }

    fn by(by: &str, marks: [Option<&str>; 2]) -> Outcome {
        Outcome::Answered {
            by: by.to_owned(),
            marks: Some(marks.map(|mark| mark.map(str::to_owned))),
        }
    }

    #[test]
    fn only_unsafe_requests_may_fail() {
        let explained = refused(502, true);
        let judge = |kind, met| judge(kind, "bob", met, &[], &explained);
        assert_eq!(judge(Kind::Post, LEFT), Verdict::Named(EXPLAINED));
        assert!(matches!(judge(Kind::Post, LIVE), Verdict::Deviation(_)));
        assert!(matches!(judge(Kind::Get, LEFT), Verdict::Deviation(_)));
        assert!(matches!(judge_unmatched(&explained), Verdict::Deviation(_)));
    }

    #[test]
    fn envoys_own_error_needs_a_killed_relay() {
        let now = Instant::now();
        let broke = |is_killed| Break {
            began: now,
            until: None,
            is_killed,
        };
        let judge = |breaks: &[Break]| judge(Kind::Post, "bob", LIVE, breaks, &refused(503, false));
        assert_eq!(judge(&[broke(true)]), Verdict::Named(KILLED));
        assert!(matches!(judge(&[broke(false)]), Verdict::Deviation(_)));
        assert!(matches!(judge(&[]), Verdict::Deviation(_)));
    }

    #[test]
    fn a_live_developer_answers_by_themselves() {
        let judge = |met, outcome: &Outcome| judge(Kind::Get, "bob", met, &[], outcome);
        let bob = by("bob", [Some("bob"), Some("bob")]);
        assert_eq!(judge(LIVE, &bob), Verdict::Developer);
        let cluster = by("app", [Some("bob"), None]);
        assert_eq!(judge(LIVE, &cluster), Verdict::Deviation(IN_PLACE));
        assert_eq!(judge(LEFT, &cluster), Verdict::Cluster);
        let post = super::judge(Kind::Post, "bob", LIVE, &[], &cluster);
        assert_eq!(post, Verdict::Suspect);
        for wrong in [
            by("bob", [Some("bob"), None]),
            by("ann", [Some("ann"), Some("ann")]),
            by("app", [Some("bob"), Some("bob")]),
        ] {
            assert!(matches!(judge(LEFT, &wrong), Verdict::Deviation(_)));
        }
        let away = Met {
            away: true,
            ..Met::default()
        };
        assert!(matches!(judge(away, &bob), Verdict::Deviation(_)));
        assert!(matches!(judge_unmatched(&cluster), Verdict::Deviation(_)));
        assert_eq!(judge_unmatched(&by("app", [None, None])), Verdict::Cluster);
    }

    #[test]
    fn streams_break_only_with_their_side() {
        let broken = Outcome::Broken(String::new());
        let judge = |met| judge(Kind::Socket, "bob", met, &[], &broken);
        assert_eq!(judge(LEFT), Verdict::Named(BROKE_OFF));
        assert!(matches!(judge(LIVE), Verdict::Deviation(_)));
    }

    #[test]
    fn a_timeline_tells_what_was_met() {
        let timeline = Timeline::default();
        let before = Instant::now();
        timeline.mark(Phase::Live);
        let between = Instant::now();
        timeline.mark(Phase::Leaving);
        let after = Instant::now();
        assert!(timeline.during(between, between).only_live());
        assert_eq!(timeline.during(between, after), LEFT);
        assert!(timeline.during(before, before).only_away());
    }
}

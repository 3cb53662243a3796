//! The status of an Intercept: conditions, replicas, Events. Pure.

use intercept_manifest::istio::resource::{
    ACCEPTED, Condition, InterceptStatus, PROGRAMMED, Replicas, WRITE_REFUSED,
};
use serde_json::{Value, json};

use super::admit::Refusal;
use super::lease::timestamp;
use super::model::{Candidate, Event, Plan, Reports, Unwritten, Write};
use super::render::Rendered;

/// Time until `Programmed` becomes `Unknown` for a silent proxy, in seconds.
///
/// It starts when the configuration is written.
const SILENCE: u64 = 3;

/// The length limit of a message, in bytes.
///
/// The schema allows 2 048 characters, an Event 1 024 bytes.
const MESSAGE: usize = 1_000;

/// The state of an Intercept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Facts<'a> {
    /// The clocks differ by this many seconds.
    Skewed(i64),
    /// It is not accepted.
    Refused(&'a Refusal),
    /// It is accepted.
    Accepted {
        /// The newest texts of the workload.
        history: &'a [Rendered],
        /// Reports of its ready replicas; `None` if these have not been queried yet.
        reports: Option<&'a Reports>,
        /// Why its EnvoyFilter could not be written.
        filter_failure: Option<&'a Unwritten>,
        /// Why the newest text could not be written.
        text_failure: Option<&'a Unwritten>,
    },
}

struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn verdict(status: &'static str, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict {
        status,
        reason,
        message: message.into(),
    }
}

/// Plans a status that differs from the current one, and an Event for each changed condition.
pub(super) fn report(one: &Candidate, facts: Facts<'_>, now: u64, plan: &mut Plan) {
    let there = one.intercept.status.clone().unwrap_or_default();
    let mut status = InterceptStatus {
        expires: Some(timestamp(one.lease.expires)),
        observed_renew_time: one.lease.observed.clone(),
        ..there.clone()
    };
    let is_programmed = there
        .condition(PROGRAMMED)
        .is_some_and(|condition| condition.status == "True");
    match facts {
        Facts::Skewed(skew) => {
            if is_programmed {
                return;
            }
            let message = format!(
                "the controller's clock and the API server's differ by {skew} s; nothing is written"
            );
            // Nor is the lease: the clock is wrong.
            status = there.clone();
            set(
                &mut status,
                PROGRAMMED,
                verdict("False", "ClockSkew", message),
                now,
            );
        }
        Facts::Refused(refusal) => {
            set(
                &mut status,
                ACCEPTED,
                verdict("False", refusal.reason, refusal.message.as_str()),
                now,
            );
            set(
                &mut status,
                PROGRAMMED,
                verdict("False", "NotAccepted", ""),
                now,
            );
            status.replicas = None;
        }
        Facts::Accepted {
            history,
            reports,
            filter_failure,
            text_failure,
        } => {
            set(&mut status, ACCEPTED, verdict("True", ACCEPTED, ""), now);
            // After a restart, the earlier result stands until the replicas have been queried.
            if reports.is_none() && is_programmed && filter_failure.is_none() {
                return push(one, &there, &status, plan);
            }
            let (programmed, replicas) = programmed(one, history, reports, now, plan);
            // The proxies may have an older text that contains this Intercept.
            let text_failure = text_failure.filter(|_| programmed.status != "True");
            let programmed = filter_failure
                .or(text_failure)
                .map_or(programmed, unwritten);
            set(&mut status, PROGRAMMED, programmed, now);
            status.replicas = replicas;
        }
    }
    push(one, &there, &status, plan);
}

/// Plans a status that differs from the current one.
fn push(one: &Candidate, there: &InterceptStatus, status: &InterceptStatus, plan: &mut Plan) {
    if status == there {
        return;
    }
    plan.statuses.push(Write {
        key: one.key(),
        basis: one
            .intercept
            .metadata
            .resource_version
            .clone()
            .unwrap_or_default(),
        body: patch(one, status),
        events: events(one, there, status),
    });
}

/// The `Programmed` condition, and the counts of replicas.
fn programmed(
    one: &Candidate,
    history: &[Rendered],
    reports: Option<&Reports>,
    now: u64,
    plan: &mut Plan,
) -> (Verdict, Option<Replicas>) {
    let pods = match reports {
        None => {
            return (
                verdict("False", "Pending", "the replicas have not been asked yet"),
                None,
            );
        }
        Some(Err(why)) => return (verdict("Unknown", "NotMeasured", why.as_str()), None),
        Some(Ok(pods)) => pods,
    };
    let (mut count, mut silent, mut inactive, mut behind) = (0, None, None, None);
    for pod in pods {
        match &pod.state {
            Err(why) => silent = silent.or(Some(format!("{}: {why}", pod.name))),
            Ok(state) => {
                let has_it = |rendered: &&Rendered| {
                    rendered.hash == state.hash && rendered.uids.contains(one.uid())
                };
                match history.iter().find(has_it) {
                    Some(rendered) if rendered.active == state.active => count += 1,
                    Some(rendered) => {
                        let (name, active, expected) = (&pod.name, state.active, rendered.active);
                        inactive = Some(format!(
                            "{name}: {active} of {expected} entries are active; is the clock of its node right?"
                        ));
                    }
                    None => {
                        behind = behind.or(Some(format!("{} has an older configuration", pod.name)))
                    }
                }
            }
        }
    }
    let total = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let replicas = Some(Replicas {
        programmed: count,
        total,
    });
    let of = format!("{count}/{total} replicas");
    let written = history
        .iter()
        .filter(|rendered| rendered.uids.contains(one.uid()))
        .map(|rendered| rendered.at)
        .min();
    let silent_from = written.unwrap_or(now).saturating_add(SILENCE);
    let verdict = match (inactive, behind, silent) {
        _ if total == 0 => verdict("False", "NoReplicas", "no replica with a sidecar is ready"),
        (None, None, None) => verdict("True", PROGRAMMED, of),
        (Some(inactive), ..) => verdict("False", "Inactive", format!("{of}; {inactive}")),
        (None, Some(behind), _) => verdict("False", "Pending", format!("{of}; {behind}")),
        (None, None, Some(silent)) if now >= silent_from => {
            verdict("Unknown", "NotMeasured", format!("{of}; {silent}"))
        }
        (None, None, Some(silent)) => {
            plan.wake(silent_from);
            verdict("False", "Pending", format!("{of}; {silent}"))
        }
    };
    (verdict, replicas)
}

fn unwritten(failure: &Unwritten) -> Verdict {
    let reason = match failure.is_refused {
        true => WRITE_REFUSED,
        false => "Pending",
    };
    verdict("False", reason, failure.why.as_str())
}

/// Sets a condition. Its transition time changes only with its status.
fn set(status: &mut InterceptStatus, kind: &str, verdict: Verdict, now: u64) {
    let there = status.conditions.iter().position(|one| one.r#type == kind);
    let mut condition = Condition {
        r#type: kind.to_owned(),
        status: verdict.status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: shortened(verdict.message),
        last_transition_time: timestamp(now),
    };
    match there.and_then(|place| status.conditions.get_mut(place)) {
        Some(there) => {
            if there.status == condition.status {
                condition
                    .last_transition_time
                    .clone_from(&there.last_transition_time);
            }
            *there = condition;
        }
        None => status.conditions.push(condition),
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.push('…');
    }
    message
}

/// The merge patch. Not an apply, because owners may rewrite the managedFields of their objects.
///
/// Contains the uid, so that it does not apply to another object of the same name.
fn patch(one: &Candidate, status: &InterceptStatus) -> Value {
    let mut patch = json!({"metadata": {"uid": one.uid()}, "status": status});
    if status.replicas.is_none() {
        patch["status"]["replicas"] = Value::Null;
    }
    patch
}

fn events(one: &Candidate, there: &InterceptStatus, status: &InterceptStatus) -> Vec<Event> {
    let reason = |status: &InterceptStatus, kind: &str| {
        let condition = status.condition(kind);
        condition.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
    };
    let mut events = Vec::new();
    for kind in [ACCEPTED, PROGRAMMED] {
        let Some((now, why, note)) = reason(status, kind) else {
            continue;
        };
        let before = reason(there, kind);
        let is_same = before.is_some_and(|(status, reason, _)| status == now && reason == why);
        // States that every Intercept goes through are no Events.
        let is_usual = ["NotAccepted", "Pending"].contains(&why.as_str());
        if !is_same && !is_usual {
            events.push(event(one, now != "True", why, note));
        }
    }
    events
}

fn event(one: &Candidate, is_warning: bool, reason: String, note: String) -> Event {
    let spec = one.spec();
    let of = format!(
        "{} on {}/{}, port {}",
        spec.owner,
        spec.workload.kind.name(),
        spec.workload.name,
        spec.port
    );
    Event {
        key: one.key(),
        uid: one.uid().to_owned(),
        is_warning,
        reason,
        note: match note.is_empty() {
            true => of,
            false => note,
        },
    }
}

/// The Event for an Intercept that is deleted after its lease.
pub(super) fn expired(one: &Candidate) -> Event {
    let note = match one.spec().renew_time {
        None => "the lease was given back".to_owned(),
        Some(_) => format!("the lease ended at {}", timestamp(one.lease.expires)),
    };
    event(one, false, "Expired".to_owned(), note)
}

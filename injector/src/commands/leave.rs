//! `injector leave`: removes intercepts by name, one's own or, with --force, those of others.

use std::time::Duration;

use futures_util::future::join_all;
use intercept_manifest::printable::one_line;
use serde::Serialize;

use crate::args::{Global, Leave};
use crate::backend;
use crate::detached::{Detached, Place};
use crate::error::{CliError, Result};
use crate::model::{Backend, Found};
use crate::output::print::{self, Shown};
use crate::shell::quote;

/// How long to wait for Envoy to let go of an intercept.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process in the background has to undo everything: its own patience with an API server and with requests under way is no longer.
const END_PATIENCE: Duration = Duration::from_secs(150);

/// Removes what the flags name. Nothing is removed unless all of it may be.
pub async fn run(global: &Global, flags: &Leave) -> Result<()> {
    let mut backend = backend::open_patiently(global).await?;
    if flags.all_namespaces {
        backend.everywhere()?;
    }
    // Expired intercepts of others are no reason to fail.
    let _ = backend.sweep();
    let here = Place::of(&backend.detached_in(None)).map(|place| place.running());
    let here = here.unwrap_or_default();
    let (me, all) = match look(backend.as_ref()).await {
        Ok(seen) => seen,
        Err(failure) => return Err(end_unseen(flags, &here, failure).await),
    };
    let place = |namespace: Option<&str>| {
        let flags_of = namespace.and_then(|namespace| backend.namespace_flags(namespace));
        flags_of.unwrap_or_else(|| global.context_flags_of(flags.all_namespaces))
    };
    let chosen = choose(flags, (&me, &place), &all, &here)?;
    let mut removed = Vec::new();
    // What one of them meets must not leave the others half done.
    let mut first_failure = None;
    for &found in &chosen {
        // It takes its entry away itself, unless it cannot.
        let has_ended = end_process(backend.as_ref(), found).await;
        // By its address: an intercept that was recreated just now is another one.
        match backend.remove(found).await {
            Ok(is_removed) if is_removed || has_ended => removed.push(found),
            Ok(_) => {}
            Err(failure) => drop(first_failure.get_or_insert(failure)),
        }
    }
    let waits = removed.iter();
    join_all(waits.map(|found| backend.wait_gone(found, GONE_TIMEOUT))).await;
    if let Err(failure) = backend.clear(&chosen).await {
        first_failure.get_or_insert(failure);
    }
    let mut removed: Vec<String> = removed.iter().map(|found| found.name.clone()).collect();
    for process in without_entry(flags, &all, &here) {
        if process.end(END_PATIENCE).await {
            removed.push(process.name.clone());
        }
    }
    if removed.is_empty() && first_failure.is_none() && !global.quiet {
        eprintln!("no intercept of {} is here", one_line(&me));
    }
    print::print(global.output, &Removed { removed })?;
    first_failure.map_or(Ok(()), Err)
}

/// Who asks, and what there is.
async fn look(backend: &dyn Backend) -> Result<(String, Vec<Found>)> {
    Ok((backend.owner().await?, backend.all().await?))
}

/// The backend does not answer, for instance since the cluster is gone: the processes of this machine are ended all the same, and try to undo what they made.
async fn end_unseen(flags: &Leave, here: &[Detached], failure: CliError) -> CliError {
    let mut ended = Vec::new();
    for process in without_entry(flags, &[], here) {
        if process.end(END_PATIENCE).await {
            ended.push(process.name.as_str());
        }
    }
    match ended.as_slice() {
        [] => failure,
        ended => CliError::failed(
            format!(
                "{}; ended on this machine: {}; what it could not remove ends with its lease",
                failure.error(),
                ended.join(", ")
            ),
            failure.hint(),
        ),
    }
}

/// Ends the process of this machine that keeps the intercept in the background, if there is one. Did it end by this?
async fn end_process(backend: &dyn Backend, found: &Found) -> bool {
    let place = Place::of(&backend.detached_in(found.namespace.as_deref()));
    let process = place.and_then(|place| place.find(&found.name));
    let Some(process) = process.filter(|it| it.record.address == found.intercept.address) else {
        return false;
    };
    let has_ended = process.end(END_PATIENCE).await;
    // One that was killed left its file.
    process.forget();
    has_ended
}

/// Those that run on this machine although their entry is gone, and would notice that only later.
fn without_entry<'h>(
    flags: &Leave,
    all: &[Found],
    here: &'h [Detached],
) -> impl Iterator<Item = &'h Detached> {
    here.iter().filter(|process| {
        let is_meant = flags.all || flags.names.contains(&process.name);
        is_meant && !all.iter().any(|found| found.name == process.name)
    })
}

/// What chooses a namespace, or without one all that was looked at, in a command that is shown.
type Placed<'p> = &'p dyn Fn(Option<&str>) -> String;

fn choose<'f>(
    flags: &Leave,
    (me, place): (&str, Placed<'_>),
    all: &'f [Found],
    here: &[Detached],
) -> Result<Vec<&'f Found>> {
    if flags.all {
        let mine = |found: &&Found| flags.force || found.intercept.owner == me;
        return Ok(all.iter().filter(mine).collect());
    }
    let mut chosen = Vec::new();
    for name in &flags.names {
        let named: Vec<&Found> = all.iter().filter(|found| found.name == *name).collect();
        match named.as_slice() {
            [] if here.iter().any(|process| process.name == *name) => {}
            [] => {
                let known = all.iter().map(|found| &found.name);
                return Err(unknown(name, known, &place(None)));
            }
            [only] if flags.force || only.intercept.owner == me => {}
            [only] => return Err(not_yours(only, me, place)),
            several => return Err(ambiguous(name, several, place)),
        }
        chosen.extend(named);
    }
    Ok(chosen)
}

/// The same name in several namespaces, or written by hand on several workloads.
fn ambiguous(name: &str, several: &[&Found], place: Placed<'_>) -> CliError {
    let places: Vec<String> = several
        .iter()
        .map(|found| {
            let namespace = found.namespace.as_deref().unwrap_or("here");
            format!("{namespace}/{}", found.workload)
        })
        .collect();
    let mut namespaces: Vec<_> = several.iter().map(|found| &found.namespace).collect();
    namespaces.dedup();
    let leave = |namespace: &Option<String>| {
        let flags = place(namespace.as_deref());
        format!("injector leave{flags} {}", quote(name))
    };
    let lines: Vec<String> = namespaces.into_iter().map(leave).collect();
    CliError::usage(
        format!(
            "{name}: several intercepts have this name: {}",
            places.join(", ")
        ),
        lines.join("; or: "),
    )
}

/// No intercept has this name. `flags`: what chooses the place that was looked at.
pub(super) fn unknown<'n>(
    name: &str,
    known: impl Iterator<Item = &'n String>,
    flags: &str,
) -> CliError {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let error = match known.as_slice() {
        [] => format!("{name}: intercept not found"),
        known => format!("{name}: intercept not found; there is {}", known.join(", ")),
    };
    CliError::failed(error, format!("injector list{flags}"))
}

fn not_yours(found: &Found, me: &str, place: Placed<'_>) -> CliError {
    let (name, owner) = (&found.name, &found.intercept.owner);
    CliError::failed(
        format!("{name}: claimed by {owner}, not by {me}"),
        format!(
            "ask them, or: injector leave{} --force {}",
            place(found.namespace.as_deref()),
            quote(name)
        ),
    )
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: Vec<String>,
}

impl Shown for Removed {
    fn text(&self) -> String {
        self.removed
            .iter()
            .map(|name| format!("{name} removed\n"))
            .collect()
    }

    fn names(&self) -> Vec<&str> {
        self.removed.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::example;

    use super::*;

    #[test]
    fn of_several_of_one_name_each_is_shown_with_its_namespace() {
        let found = |namespace: &str, workload: &str| Found {
            namespace: Some(namespace.to_owned()),
            kind: None,
            workload: workload.to_owned(),
            name: "bob".to_owned(),
            intercept: example::entry(),
            limits: intercept_core::Limits::default(),
            refusal: None,
            replicas: None,
        };
        let all = [
            found("here", "orders"),
            found("here", "other"),
            found("there", "orders"),
        ];
        let place = |namespace: Option<&str>| format!(" -n {}", namespace.unwrap_or_default());
        let failure = ambiguous("bob", &all.each_ref(), &place);
        assert_eq!(
            failure.to_string(),
            "error: bob: several intercepts have this name: here/orders, here/other, there/orders\n\n\
             hint: injector leave -n here bob; or: injector leave -n there bob"
        );
    }
}

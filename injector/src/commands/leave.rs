//! `injector leave`: removes intercepts by name, one's own or, if forced, anybody's.

use std::time::Duration;

use intercept_core::Intercept;
use serde::Serialize;

use crate::backend::{Backend, Found};
use crate::cli::{Global, Leave};
use crate::curl::quote;
use crate::hint::{Failure, Result};
use crate::print::{self, Shown};

/// How long to wait for Envoy to let go of an intercept.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Removes what the flags name. Nothing is removed unless all of it may be.
pub async fn run(global: &Global, flags: &Leave) -> Result<()> {
    let mut backend = Backend::open_patiently(global).await?;
    if flags.all_namespaces {
        backend = backend.everywhere()?;
    }
    // Somebody else's leftovers are no reason to fail.
    let _ = backend.sweep().await;
    let me = backend.owner().await?;
    let all = backend.all().await?;
    let mut removed = Vec::new();
    for found in choose(flags, &me, &all)? {
        // By its address: one that was made anew in this moment is not the one that was meant.
        if backend.remove(found).await? {
            removed.push(found);
        }
    }
    for found in &removed {
        backend.wait_gone(found, GONE_TIMEOUT).await;
    }
    if removed.is_empty() && !global.quiet {
        eprintln!("no intercept of {me} is here");
    }
    let removed = removed.iter().map(|found| found.name.clone()).collect();
    print::print(global.output, &Removed { removed })
}

fn choose<'f>(flags: &Leave, me: &str, all: &'f [Found]) -> Result<Vec<&'f Found>> {
    if flags.all {
        let mine = |found: &&Found| flags.force || found.intercept.owner == me;
        return Ok(all.iter().filter(mine).collect());
    }
    let mut chosen = Vec::new();
    for name in &flags.names {
        let named: Vec<&Found> = all.iter().filter(|found| found.name == *name).collect();
        match named.as_slice() {
            [] => return Err(unknown(name, all.iter().map(|found| &found.name))),
            [only] => check_owner(name, &only.intercept, me, flags.force)?,
            several => return Err(ambiguous(name, several)),
        }
        chosen.extend(named);
    }
    Ok(chosen)
}

/// The same name in several namespaces, or written by hand on several workloads.
fn ambiguous(name: &str, several: &[&Found]) -> Failure {
    let places: Vec<String> = several
        .iter()
        .map(|found| {
            let namespace = found.namespace.as_deref().unwrap_or("here");
            format!("{namespace}/{}", found.workload)
        })
        .collect();
    Failure::usage(
        format!(
            "{name}: several intercepts have this name: {}",
            places.join(", ")
        ),
        format!("injector leave -n NAMESPACE {}", quote(name)),
    )
}

/// No intercept has this name.
pub(super) fn unknown<'n>(name: &str, known: impl Iterator<Item = &'n String>) -> Failure {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let error = match known.as_slice() {
        [] => format!("{name}: no such intercept, there is none"),
        known => format!("{name}: no such intercept, there is {}", known.join(", ")),
    };
    Failure::failed(error, "injector list")
}

fn check_owner(name: &str, intercept: &Intercept, me: &str, force: bool) -> Result<()> {
    if force || intercept.owner == me {
        return Ok(());
    }
    Err(Failure::failed(
        format!("{name}: claimed by {}, not by {me}", intercept.owner),
        format!("ask them, or: injector leave --force {}", quote(name)),
    ))
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

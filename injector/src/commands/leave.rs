//! `injector leave`: removes intercepts by name, one's own or, if forced, anybody's.

use std::time::Duration;

use intercept_core::Intercept;
use serde::Serialize;

use crate::backend::Backend;
use crate::cli::{Global, Leave};
use crate::curl::quote;
use crate::developer;
use crate::hint::{Failure, Result};
use crate::print::{self, Shown};

/// How long to wait for Envoy to let go of an intercept.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Removes what the flags name. Nothing is removed unless all of it may be.
pub async fn run(global: &Global, flags: &Leave) -> Result<()> {
    let backend = Backend::open(global)?;
    let document = backend.document()?;
    let me = developer::name();
    let names: Vec<&String> = match flags.all {
        true => document
            .intercepts
            .iter()
            .filter(|(_, intercept)| flags.force || intercept.owner == me)
            .map(|(name, _)| name)
            .collect(),
        false => flags.names.iter().collect(),
    };
    let mut chosen = Vec::new();
    for name in names {
        let intercept = document
            .intercepts
            .get(name)
            .ok_or_else(|| unknown(name, document.intercepts.keys()))?;
        check_owner(name, intercept, &me, flags.force)?;
        chosen.push((name, &intercept.address));
    }
    let mut removed = Vec::new();
    for (name, address) in chosen {
        // By its address: one that was made anew in this moment is not the one that was meant.
        if backend.remove(name, Some(address))?.is_some() {
            removed.push(name.clone());
        }
    }
    for name in &removed {
        backend.wait_gone(name, GONE_TIMEOUT).await;
    }
    if removed.is_empty() && !global.quiet {
        eprintln!("no intercept of {me} is here");
    }
    print::print(global.output, &Removed { removed })
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

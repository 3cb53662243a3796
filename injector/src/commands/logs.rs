//! `injector logs`: what an intercept in the background has said, and says.

use std::fs::File;
use std::io;

use crate::backend;
use crate::cli::{Global, Logs};
use crate::detached::{Place, print_log};
use crate::hint::{Failure, OrHint, Result};

/// Prints the log; with `--follow`, until that intercept ends.
pub async fn run(global: &Global, flags: &Logs) -> Result<()> {
    let place = Place::of(&backend::detached(global).await?);
    let known = place.as_ref().map(Place::logs).unwrap_or_default();
    let log = place.as_ref().and_then(|place| place.log(&flags.name));
    let Some((place, path)) = place.as_ref().zip(log) else {
        return Err(unknown(&flags.name, &known));
    };
    // Before its log: one that starts meanwhile under this name has another.
    let process = place.find(&flags.name);
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(gone(&flags.name, process.is_some_and(|it| it.is_running()))
                .unwrap_or_else(|| unknown(&flags.name, &known)));
        }
        Err(error) => {
            let hint = format!("ls -l {}", crate::curl::quote(&path.to_string_lossy()));
            return Err(Failure::failed(
                format_args!("{}: {error}", path.display()),
                hint,
            ));
        }
    };
    let follow = process.as_ref().filter(|_| flags.follow);
    match print_log(log, follow, &mut io::stdout().lock()).await {
        // `| head` wanted no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.or_hint(path.display(), "df -h ."),
    }
}

fn gone(name: &str, is_running: bool) -> Option<Failure> {
    is_running.then(|| {
        Failure::failed(
            format!("{name}: it runs, but somebody removed its log"),
            format!("a new log takes a new start: injector leave {name}"),
        )
    })
}

fn unknown(name: &str, known: &[String]) -> Failure {
    let there = match known {
        [] => "there is no log here of any".to_owned(),
        known => format!("there is a log of {}", known.join(", ")),
    };
    Failure::failed(
        format!("{name}: no intercept of this name was detached on this machine, {there}"),
        "injector list; one in the foreground has its log on its own terminal, and -n or --context chooses another place",
    )
}

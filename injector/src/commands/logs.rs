//! `injector logs`: what an intercept in the background has said, and says.

use std::fs::File;
use std::io;

use crate::args::{Global, Logs};
use crate::backend;
use crate::detached::Place;
use crate::detached::follow::print_log;
use crate::error::{CliError, OrHint, Result};
use crate::shell::quote;

/// Prints the log; with `--follow`, until that intercept ends.
pub async fn run(global: &Global, flags: &Logs) -> Result<()> {
    let place = Place::of(&backend::detached(global).await?);
    let known = place.as_ref().map(Place::logs).unwrap_or_default();
    let log = place.as_ref().and_then(|place| place.log(&flags.name));
    let Some((place, path)) = place.as_ref().zip(log) else {
        return Err(unknown(&flags.name, &known, &global.context_flags()));
    };
    // Before its log: one that starts meanwhile under this name has another.
    let process = place.find(&flags.name);
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let place = global.context_flags();
            return Err(match process.is_some_and(|it| it.is_running()) {
                true => gone(&flags.name, &place),
                false => unknown(&flags.name, &known, &place),
            });
        }
        Err(error) => {
            let hint = format!("ls -l {}", quote(&path.to_string_lossy()));
            return Err(CliError::failed(
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

/// `place`: the flags that choose it.
fn gone(name: &str, place: &str) -> CliError {
    CliError::failed(
        format!("{name}: it runs, but its log is gone"),
        format!(
            "a new log takes a new start: injector leave{place} {}",
            quote(name)
        ),
    )
}

fn unknown(name: &str, known: &[String], place: &str) -> CliError {
    let there = match known {
        [] => "there is no log here of any".to_owned(),
        known => format!("there is a log of {}", known.join(", ")),
    };
    CliError::failed(
        format!("{name}: no intercept of this name was detached on this machine, {there}"),
        format!(
            "injector list{place}; one in the foreground has its log on its own terminal, and -n or --context chooses another place"
        ),
    )
}

//! Becomes the command behind `--`, after asking the kernel to end it when the intercept's process ends: a `kill -9` of that one leaves no child behind. Where the command has a
//! network namespace, it joins that as well. A process can do both only for itself and before it becomes another program, which is why `injector` stands in between.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::program;
use crate::error::{CliError, Result};
use crate::outbound;
use crate::shell::quote;

/// First argument that selects this mode. Hidden: neither the help nor a completion lists it.
const WORD: &str = "--exec-child";

/// Stands for what is not wanted.
const NONE: &str = "-";

/// What to become, and how.
#[derive(Debug)]
pub struct Asked {
    /// Ends the command with it.
    parent: Option<u32>,
    /// The word of the namespace to join.
    membership: Option<String>,
    command: Vec<OsString>,
}

/// The arguments with which this process starts the one that becomes `command`, ends with this one, and joins a namespace before.
pub fn arguments(command: &[OsString], membership: Option<&str>) -> Vec<OsString> {
    words(&std::process::id().to_string(), membership, command)
}

/// The arguments with which this process itself becomes `command` in that namespace.
pub fn arguments_inside(command: &[OsString], membership: &str) -> Vec<OsString> {
    words(NONE, Some(membership), command)
}

fn words(parent: &str, membership: Option<&str>, command: &[OsString]) -> Vec<OsString> {
    let own = [WORD, parent, membership.unwrap_or(NONE)].map(OsString::from);
    own.into_iter().chain(command.iter().cloned()).collect()
}

/// Parses the program's arguments; `None` if they do not select this mode.
pub fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Asked> {
    arguments.next().filter(|word| word == WORD)?;
    let mut word = || {
        let word = arguments.next()?.into_string().ok()?;
        Some(Some(word).filter(|word| word != NONE))
    };
    let (parent, membership) = (word()?, word()?);
    Some(Asked {
        parent: parent.map(|pid| pid.parse()).transpose().ok()?,
        membership,
        command: arguments.collect(),
    })
}

/// Becomes the command. Returns only on failure.
pub fn run(asked: &Asked) -> Result<u8> {
    let [program, arguments @ ..] = asked.command.as_slice() else {
        return Ok(0);
    };
    if let Some(parent) = asked.parent {
        end_with(parent)?;
    }
    if let Some(membership) = &asked.membership {
        outbound::join(membership)?;
    }
    let error = Command::new(program).args(arguments).exec();
    // The program was found before; a script may name an interpreter that does not exist.
    if error.kind() == ErrorKind::NotFound {
        program::find(program)?;
    }
    let program = program.to_string_lossy();
    let failure = CliError::failed(
        format_args!("-- {program}: {error}"),
        format!("file {}", quote(&program)),
    );
    Err(failure.exit(program::NOT_EXECUTABLE))
}

#[cfg(target_os = "linux")]
fn end_with(parent: u32) -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    // Without kernel support the child outlives a `kill -9`: no reason not to run it.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let is_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_pid()) == Ok(parent));
    match is_there {
        true => Ok(()),
        // The parent ended before the kernel could watch it.
        false => Err(CliError::failed(
            "the intercept of this command has ended",
            "injector intercept --help",
        )),
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with(_: u32) -> Result<()> {
    Ok(())
}

//! Replaces this process with the command behind `--`.
//!
//! A `kill -9` of the intercept then leaves no child behind.
//!
//! The kernel sends a signal when the parent ends, but a process can request that only for itself, before `exec`: hence this `injector` in between.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::program;
use crate::hint::{Failure, Result};
use crate::shell::quote;

/// First argument that selects this mode. Hidden: neither the help nor a completion lists it.
const WORD: &str = "--exec-child";

/// The command to run, and the process id of the expected parent.
#[derive(Debug)]
pub struct Asked {
    parent: u32,
    command: Vec<OsString>,
}

/// Arguments with which this process starts the one that becomes `command`.
pub fn arguments(command: &[OsString]) -> Vec<OsString> {
    let own = [OsString::from(WORD), std::process::id().to_string().into()];
    own.into_iter().chain(command.iter().cloned()).collect()
}

/// Parses the program's arguments; `None` if they do not select this mode.
pub fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Asked> {
    arguments.next().filter(|word| word == WORD)?;
    let parent = arguments.next()?.to_str()?.parse().ok()?;
    let command = arguments.collect();
    Some(Asked { parent, command })
}

/// Becomes the command. Returns only on failure.
pub fn run(asked: &Asked) -> Result<u8> {
    let [program, arguments @ ..] = asked.command.as_slice() else {
        return Ok(0);
    };
    end_with(asked.parent)?;
    let error = Command::new(program).args(arguments).exec();
    // The program was found before; a script may name an interpreter that does not exist.
    if error.kind() == ErrorKind::NotFound {
        program::find(program)?;
    }
    let program = program.to_string_lossy();
    let failure = Failure::failed(
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
        false => Err(Failure::failed(
            "the intercept of this command has ended",
            "injector intercept --help",
        )),
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with(_: u32) -> Result<()> {
    Ok(())
}

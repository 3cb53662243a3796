//! Runs an intercept in the background, without a fork.
//!
//! The command starts a copy of itself and waits. The copy does everything on the terminal, as in the foreground. Once its intercept is live, it leaves the terminal and writes
//! a byte that no output contains to its stdout, a pipe, and the first process exits. Until then a signal or an error ends both, with the copy's exit code.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::signals::Signals;
use crate::args::Global;
use crate::error::{OrHint, Result};
use crate::output::print;

/// Environment variable that marks the copy.
const VARIABLE: &str = "INJECTOR_GOES_TO_BACKGROUND";

/// Last byte that the copy writes to stdout. No JSON, YAML or name contains it.
const IN_BACKGROUND: u8 = 0;

/// Is this process the copy?
pub fn is_copy() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the copy, and returns its exit code, or 0 once it runs in the background.
///
/// Prints what the copy wrote to stdout.
pub async fn send(global: &Global) -> Result<u8> {
    let list = format!("injector list{}", global.context_flags());
    let mut signals = Signals::catch().or_hint("signals", "injector intercept --help")?;
    let mut copy = std::env::current_exe()
        .and_then(|program| {
            Command::new(program)
                .args(std::env::args_os().skip(1))
                .env(VARIABLE, "1")
                .stdout(Stdio::piped())
                .spawn()
        })
        .or_hint("--detach", "leave out --detach")?;
    let pid = copy.id();
    // Checked now: after a hangup there is no terminal.
    let has_terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    let pass = |signal| pass(pid, signal, has_terminal);
    let mut said = Vec::new();
    if let Some(mut stdout) = copy.stdout.take() {
        let listening = stdout.read_to_end(&mut said);
        tokio::pin!(listening);
        loop {
            tokio::select! {
                heard = &mut listening => break heard.map(drop).or_hint("--detach", &list)?,
                signal = signals.next() => pass(signal),
            }
        }
    }
    let is_in_background = said.pop_if(|last| *last == IN_BACKGROUND).is_some();
    print::stdout(&String::from_utf8_lossy(&said))?;
    if is_in_background {
        return Ok(0);
    }
    loop {
        tokio::select! {
            status = copy.wait() => return Ok(super::child::code(status.or_hint("--detach", &list)?)),
            signal = signals.next() => pass(signal),
        }
    }
}

/// Passes a signal to the copy, unless it came from the terminal.
///
/// The terminal signals the copy as well, and a second signal would cut its teardown short.
fn pass(pid: Option<u32>, signal: Signal, has_terminal: bool) {
    if signal != Signal::TERM && has_terminal {
        return;
    }
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
        // The copy may have exited already.
        let _ = kill_process(pid, signal);
    }
}

/// Leaves the terminal and its session, and redirects stderr to the log.
///
/// From now on nothing that happens to the terminal reaches this process.
pub fn leave_terminal(log: &File) -> Result<()> {
    // Fails only for the leader of a process group, which no longer belongs to its parent's terminal anyway.
    let _ = setsid();
    let left = File::open("/dev/null").and_then(|null| {
        dup2_stdin(null)?;
        Ok(dup2_stderr(log)?)
    });
    left.or_hint("--detach", "injector intercept --help")
}

/// Notifies the waiting process that it may exit.
///
/// Fails if it is gone: the user would never learn that an intercept is running.
pub fn tell(log: &File) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let told = stdout
        .write_all(&[IN_BACKGROUND])
        .and_then(|()| stdout.flush())
        // The waiting process reads until this closes the pipe.
        .and_then(|()| Ok(dup2_stdout(log)?));
    told.or_hint(
        "--detach: the waiting process is gone",
        "injector intercept --help",
    )
}

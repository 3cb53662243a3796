//! How an intercept comes to run in the background, without a fork: the command starts itself anew and waits. The copy does everything on the terminal, as it would in the
//! foreground; once its intercept lives it leaves the terminal and says so, and the first one ends. Until then a signal or an error ends both, with the copy's exit code.
//!
//! What it says it on is its stdout, a pipe: a last byte that no output has.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::signals::Signals;
use crate::args::Global;
use crate::hint::{OrHint, Result};
use crate::output::print;

/// Tells the copy that it is one.
const VARIABLE: &str = "INJECTOR_GOES_TO_BACKGROUND";

/// Ends what the copy prints on stdout. Neither JSON nor YAML nor a name has it.
const IN_BACKGROUND: u8 = 0;

/// Is this process the copy?
pub fn is_copy() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the copy with the same arguments and waits until it runs in the background, or has ended. Returns the exit code; what there is to say the copy has said.
pub async fn send(global: &Global) -> Result<u8> {
    let list = format!("injector list{}", global.place_flags());
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
    // Asked now: one that has hung up is none any more.
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

/// What comes from the terminal has reached the copy as well, and a second one would cut its undo short.
fn pass(pid: Option<u32>, signal: Signal, has_terminal: bool) {
    if signal != Signal::TERM && has_terminal {
        return;
    }
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
        // It may have ended a moment ago.
        let _ = kill_process(pid, signal);
    }
}

/// Leaves the terminal and its session: what people read goes to the log from now on, and nothing that happens to the terminal reaches this process.
pub fn leave_terminal(log: &File) -> Result<()> {
    // Fails only in a process that is the first of its group, which is away from its parent's terminal as well.
    let _ = setsid();
    let left = File::open("/dev/null").and_then(|null| {
        dup2_stdin(null)?;
        Ok(dup2_stderr(log)?)
    });
    left.or_hint("--detach", "injector intercept --help")
}

/// Tells the one that waits that it may end. Fails where it is gone: then nobody knows that anything goes on.
pub fn tell(log: &File) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let told = stdout
        .write_all(&[IN_BACKGROUND])
        .and_then(|()| stdout.flush())
        // It reads until this closes the pipe.
        .and_then(|()| Ok(dup2_stdout(log)?));
    told.or_hint("--detach: nobody waits", "injector intercept --help")
}

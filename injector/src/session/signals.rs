//! Signals that ask the command to end.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// SIGINT, SIGTERM and SIGHUP, caught from construction on.
#[derive(Debug)]
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    ignores_hangup: bool,
}

impl Signals {
    /// Catches the signals. Needs a runtime.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            ignores_hangup: false,
        })
    }

    /// Ignores SIGHUP from now on.
    pub fn ignore_hangup(&mut self) {
        self.ignores_hangup = true;
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Signal::INT,
                _ = self.terminate.recv() => return Signal::TERM,
                _ = self.hangup.recv() => if !self.ignores_hangup {
                    return Signal::HUP;
                },
            }
        }
    }
}

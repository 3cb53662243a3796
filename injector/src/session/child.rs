//! The command behind `--`, started once the intercept is live.
//!
//! Passes signals on, and returns the exit code.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::exec_child;
use crate::environment::Environment;
use crate::error::{OrHint, Result};
use crate::outbound::Network;

/// How a child finds out which intercept it runs under.
pub const NAME_VARIABLE: &str = "INJECTOR_INTERCEPT";

/// Time between SIGTERM and SIGKILL when the intercept is lost.
const GRACE: Duration = Duration::from_secs(5);

/// The command to run.
#[derive(Debug)]
pub struct ChildCommand {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Variables to set in addition to the developer's own.
    pub environment: Environment,
}

/// A running command.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
}

impl Child {
    /// Starts it, in this process group, on this terminal and in that network. It does not outlive this process, not even where this is killed: see `exec_child`.
    pub fn start(
        command: ChildCommand,
        intercept: &str,
        network: Option<&Network>,
    ) -> Result<Self> {
        let membership = network.and_then(Network::membership);
        let own = |name: &str| {
            let mut pairs = command.environment.for_child();
            let found = pairs.find(|(known, _)| *known == name);
            found.map_or_else(
                || std::env::var(name).ok(),
                |(_, value)| Some(value.to_owned()),
            )
        };
        let variables = network.map(|network| network.variables(own));
        let process = std::env::current_exe().and_then(|itself| {
            Command::new(itself)
                .args(exec_child::arguments(&command.words, membership.as_deref()))
                .envs(command.environment.for_child())
                .envs(variables.unwrap_or_default())
                .env(NAME_VARIABLE, intercept)
                .spawn()
        });
        let process = process.or_hint("-- CMD", "ulimit -u")?;
        Ok(Self { process })
    }

    /// Waits for the exit code: the command's, or 128 plus the number of the signal.
    pub async fn wait(&mut self) -> io::Result<u8> {
        Ok(code(self.process.wait().await?))
    }

    /// Passes a signal on. The terminal sends SIGINT to the whole process group itself.
    pub fn pass(&self, signal: Signal) {
        if signal == Signal::INT && io::stdin().is_terminal() {
            return;
        }
        let pid = self
            .process
            .id()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            // It may have exited already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends the command: SIGTERM, then SIGKILL after [`GRACE`].
    pub async fn end(&mut self) {
        self.pass(Signal::TERM);
        if tokio::time::timeout(GRACE, self.process.wait())
            .await
            .is_err()
        {
            let _ = self.process.kill().await;
        }
    }
}

/// The exit code, or 128 plus the number of the signal.
pub fn code(status: ExitStatus) -> u8 {
    let number = status
        .code()
        .or_else(|| Some(status.signal()? + 128))
        .unwrap_or(1);
    u8::try_from(number).unwrap_or(1)
}

//! The command behind `--`: started once the intercept is live, told of signals, and asked for its exit code.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::exec_child;
use crate::environment::Environment;
use crate::hint::{OrHint, Result};
use crate::outbound::Network;

/// How a child finds out which intercept it runs under.
pub const NAME_VARIABLE: &str = "INJECTOR_INTERCEPT";

/// How long a child has to end after SIGTERM when its intercept is lost.
const GRACE: Duration = Duration::from_secs(5);

/// What is to be run.
#[derive(Debug)]
pub struct ChildCommand {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Variables that it gets besides the developer's own.
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

    /// Waits for its end; its exit code, or 128 and the signal's number.
    pub async fn wait(&mut self) -> io::Result<u8> {
        Ok(code(self.process.wait().await?))
    }

    /// Passes a signal on. A SIGINT from the terminal has reached the whole process group already.
    pub fn pass(&self, signal: Signal) {
        if signal == Signal::INT && io::stdin().is_terminal() {
            return;
        }
        let pid = self
            .process
            .id()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            // It may have ended a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it: SIGTERM, and SIGKILL when it does not listen.
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

/// The exit code, or 128 and the signal's number.
pub fn code(status: ExitStatus) -> u8 {
    let number = status
        .code()
        .or_else(|| Some(status.signal()? + 128))
        .unwrap_or(1);
    u8::try_from(number).unwrap_or(1)
}

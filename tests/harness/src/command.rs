//! A child process with output in files.
//!
//! Its guard ends it, and prints its output if the test fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A process that a test started.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process with stdout and stderr in `DIR/NAME.log`.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).expect("a new log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The output so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("its log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // It may have ended by itself, which the test will notice.
        let _ = kill_process(Pid::from_raw(id).expect("not 0"), signal);
    }

    /// Kills the process with SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        // An error means that it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        wait::until_some(&format!("{} ends", self.name), async || self.exited()).await
    }

    /// Waits for that text in the output. Panics if the process ends first.
    pub async fn wait_output(&mut self, text: &str) {
        self.wait_output_with(&format!("writes {text:?}"), |output| {
            output.contains(text).then_some(())
        })
        .await;
    }

    /// Waits until `find` finds something in the output. Panics if the process ends first.
    pub async fn wait_output_with<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("{} {what}", self.name);
        wait::until_some(&what, async || {
            // Checked before reading, because output from before the end counts.
            let ended = self.exited();
            let output = self.output();
            let found = find(&output);
            assert!(
                found.is_some() || ended.is_none(),
                "{what}: it ended before, {ended:?}:\n{output}"
            );
            found
        })
        .await
    }

    /// The peak of resident memory, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("VmHWM in KiB").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // The directory may be gone, and a second panic must be avoided.
            let output = std::fs::read(&self.log).unwrap_or_default();
            let output = String::from_utf8_lossy(&output);
            eprintln!("--- {} wrote:\n{}", self.name, tail(&output, 20));
        }
    }
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

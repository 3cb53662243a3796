//! Runs this binary as an ordinary user, and waits for what it does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tempfile::TempDir;

use super::run::PATIENCE;

/// The user id for programs where the tests run as root (Debian's unprivileged one).
const ORDINARY: u32 = 65_534;

/// Where the system's own programs are; a version manager's may lie where others may not look.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A copy of this binary that every user may run.
static COPY: OnceLock<PathBuf> = OnceLock::new();

/// Makes the copy. Before any test runs: a process that is started while the file is open for writing keeps it from being executed.
pub fn copy_program() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("fixture");
    fs::copy(std::env::current_exe().expect("a path"), &copy).expect("a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("permissions");
    COPY.set(copy).expect("one copy");
    dir
}

/// A directory with a link to that copy.
pub struct Fixture {
    dir: TempDir,
    program: PathBuf,
}

impl Fixture {
    /// A link of its own, so that its processes are told from those of other tests.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
        let program = dir.path().join("fixture");
        fs::hard_link(COPY.get().expect("a copy"), &program).expect("a link");
        Self { dir, program }
    }

    /// The directory, in which every user may write.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The link's path.
    pub fn program(&self) -> &str {
        self.program.to_str().expect("a path")
    }

    /// A command as an ordinary user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path());
        command.env("PATH", PATH).env("HOME", self.dir.path());
        if rustix::process::geteuid().is_root() {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        command
    }

    /// `run -- CMD`.
    pub fn inside(&self, words: &[&str]) -> Command {
        let mut command = self.command(self.program());
        command.arg("run").arg("--").args(words);
        command
    }

    /// What a shell in the namespace prints. Fails where it fails.
    pub fn shell(&self, script: &str) -> String {
        let output = output(self.inside(&["bash", "-euo", "pipefail", "-c", script]));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{script}\n{}: {error}",
            output.status
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// What a Python program in the namespace prints.
    pub fn python(&self, script: &str) -> String {
        let output = output(self.inside(&["python3", "-c", script]));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{error}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Starts `run -- CMD` and returns once the namespace is there.
    pub fn start(&self, flags: &[&str], words: &[&str]) -> Running {
        let mut command = self.command(self.program());
        command.arg("run").args(flags).arg("--").args(words);
        Running::start(command)
    }

    /// The processes that run it or work in its directory.
    pub fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers
            .filter(|pid: &u32| {
                let exe = fs::read_link(format!("/proc/{pid}/exe"));
                let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
                let is_ours = |path: PathBuf| path.starts_with(self.dir.path());
                exe.is_ok_and(is_ours) || cwd.is_ok_and(is_ours)
            })
            .collect()
    }

    /// Waits until none of them is left.
    pub fn wait_for_nothing(&self) {
        wait_for("no process is left", || self.processes().is_empty());
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .expect("the directory")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.retain(|name| name != "fixture");
        assert!(names.is_empty(), "{names:?}");
    }
}

/// A command in a namespace, with what it and the engine print.
pub struct Running {
    /// The engine.
    pub engine: Child,
    /// The helper's process.
    pub helper: u32,
    /// Whole lines.
    lines: Receiver<String>,
}

impl Running {
    /// Starts it and returns once the namespace is there.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut engine = command.spawn().expect("an engine");
        let (lines_tx, lines) = channel();
        let stdout = engine.stdout.take().expect("stdout");
        let stderr = engine.stderr.take().expect("stderr");
        let to = lines_tx.clone();
        let forward = |line, to: &std::sync::mpsc::Sender<_>| to.send(line).is_ok();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.take_while(|line| forward(line.clone(), &to)).count()
        });
        thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines
                .take_while(|line| forward(line.clone(), &lines_tx))
                .count()
        });
        let mut running = Self {
            engine,
            helper: 0,
            lines,
        };
        let ready = running.line_with("fixture: ready");
        let helper = ready.rsplit(' ').next().and_then(|word| word.parse().ok());
        running.helper = helper.expect("the helper's number");
        running
    }

    /// Waits for a line that contains `text`.
    pub fn line_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{text}: {error}; {seen:#?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.engine.kill();
        let _ = self.engine.wait();
    }
}

/// A test that fails by a panic.
pub fn trial(name: &str, run: fn()) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// Runs to the end, or fails after a while.
pub fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("a process");
    let pid = rustix::process::Pid::from_child(&child);
    let (done_tx, done) = channel::<()>();
    let guard = thread::spawn(move || {
        if done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("an output");
    drop(done_tx);
    guard.join().expect("the guard");
    output
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(10));
    }
}

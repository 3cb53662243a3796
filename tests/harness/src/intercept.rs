//! A developer at a terminal: the release `injector` with its own home directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::app::App;
use crate::binaries;
use crate::command::Process;

/// A developer with a terminal.
#[derive(Debug)]
pub struct Developer {
    name: String,
    place: Place,
    home: PathBuf,
}

/// Where the developer intercepts.
#[derive(Debug)]
enum Place {
    /// An Envoy with this directory of files.
    Envoy(PathBuf),
    /// A cluster, with this kubeconfig.
    Cluster(PathBuf),
}

impl Developer {
    /// A developer at a plain Envoy.
    ///
    /// `envoy` is the directory of files; the home directory is created in `dir`.
    pub fn new(name: &str, envoy: &Path, dir: &Path) -> Self {
        Self::at(name, Place::Envoy(envoy.to_owned()), dir)
    }

    /// A developer at a cluster. The kubeconfig names the user and the namespace.
    pub fn of_cluster(name: &str, kubeconfig: &Path, dir: &Path) -> Self {
        Self::at(name, Place::Cluster(kubeconfig.to_owned()), dir)
    }

    fn at(name: &str, place: Place, dir: &Path) -> Self {
        let home = dir.join(format!("home-{name}"));
        std::fs::create_dir_all(&home).expect("a writable directory");
        Self {
            name: name.to_owned(),
            place,
            home,
        }
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `injector` with these arguments, ready to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::injector());
        command.args(arguments);
        self.at_home(&mut command);
        command
    }

    /// A command line in a shell with `injector` in the path and the place in its environment.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        // `exec`: the program replaces the shell, so that ending one ends the other.
        command.args(["-c", &format!("exec {line}")]);
        self.at_home(&mut command);
        let binary = binaries::injector();
        let bin = binary.parent().expect("it lies in a directory").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)));
        command.env("PATH", path.expect("a path"));
        command
    }

    fn at_home(&self, command: &mut Command) {
        match &self.place {
            Place::Envoy(dir) => command.env("INJECTOR_ENVOY", dir),
            Place::Cluster(kubeconfig) => command
                .env("KUBECONFIG", kubeconfig)
                .env_remove("INJECTOR_ENVOY"),
        };
        command
            .env("USER", &self.name)
            .env("HOME", &self.home)
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_DATA_HOME");
    }

    /// Runs `injector` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it starts")
    }

    /// Intercepts `orders` with these arguments, served by `server`.
    ///
    /// Returns once the intercept is live.
    pub async fn intercept(&self, server: &App, arguments: &[&str]) -> Intercept {
        let port = server.port().to_string();
        self.intercept_port(&port, arguments).await
    }

    /// The same with any value for `--port`.
    pub async fn intercept_port(&self, port: &str, arguments: &[&str]) -> Intercept {
        let mut all = vec!["intercept", "orders", "--port", port];
        all.extend(arguments);
        self.start(self.command(&all)).await
    }

    /// Starts a command that intercepts. Returns once the intercept is live.
    pub async fn start(&self, command: Command) -> Intercept {
        let log = format!("intercept-{}-{}", self.name, number());
        let mut process = Process::start(&log, &self.home, command);
        // The last line printed when it is live.
        process.wait_output("curl ").await;
        Intercept { process }
    }
}

/// A number that makes the log of each process unique.
fn number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A running `injector intercept`.
///
/// Dropping it kills the process: tests of a graceful end have to end it themselves.
#[derive(Debug)]
pub struct Intercept {
    /// The process.
    pub process: Process,
}

impl Intercept {
    /// The printed `curl` line.
    pub fn curl(&self) -> String {
        let output = self.process.output();
        let line = output
            .lines()
            .find_map(|line| line.find("curl ").map(|at| &line[at..]));
        line.expect("a line to try").trim().to_owned()
    }

    /// The value of the automatic header from the printed `curl` line, if there is one.
    pub fn automatic_id(&self) -> Option<String> {
        let curl = self.curl();
        let (_, rest) = curl.split_once("x-intercept-id: ")?;
        Some(rest.get(..36).expect("a UUID").to_owned())
    }

    /// Presses Ctrl-C, and waits for the end.
    pub async fn leave(mut self) -> std::process::ExitStatus {
        self.process.signal(rustix::process::Signal::INT);
        self.process.wait().await
    }
}

//! What the tests of the command line share: a prepared directory, a relay in this process, and the command with nothing of the tester's own environment.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use injector::envoy::Dir;
use intercept_core::{Intercept, Limits, MatchHeader};
use intercept_manifest::facts::{Module, Port, Protocol, Relay, WORKLOAD_VERSION, Workload};
use intercept_tunnel::relay;

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(40);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_injector");

/// A directory prepared for a plain Envoy, a home, and perhaps a relay.
pub struct Place {
    folder: tempfile::TempDir,
    pub data: SocketAddr,
    pub control: SocketAddr,
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Place {
    /// With a relay.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a relay, and what the operator said changed.
    pub fn with(change: impl FnOnce(&mut Workload)) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (data, control) = runtime.block_on(async {
            let data = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("bound");
            let control = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("bound");
            let addresses = (
                data.local_addr().expect("bound"),
                control.local_addr().expect("bound"),
            );
            tokio::spawn(relay::serve(
                vec![data],
                control,
                None,
                relay::Options::default(),
                std::future::pending(),
            ));
            addresses
        });
        let place = Self {
            folder: tempfile::tempdir().expect("a folder"),
            data,
            control,
            _runtime: Some(runtime),
        };
        let mut workload = workload(data, control);
        change(&mut workload);
        Dir::install(&place.envoy(), &workload).expect("installed");
        place
    }

    /// Nothing listens where the relay should be.
    pub fn without_relay() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (data, control) = (free().expect("free"), free().expect("free"));
        let place = Self {
            folder: tempfile::tempdir().expect("a folder"),
            data,
            control,
            _runtime: None,
        };
        Dir::install(&place.envoy(), &workload(data, control)).expect("installed");
        place
    }

    pub fn envoy(&self) -> PathBuf {
        self.folder.path().join("envoy")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn dir(&self) -> Dir {
        Dir::open(&self.envoy()).expect("prepared")
    }

    /// The operator changes the limits, as by `injector --envoy DIR install`.
    pub fn limit(&self, change: impl FnOnce(&mut Limits)) {
        let mut workload = self.dir().workload().clone();
        change(&mut workload.limits);
        Dir::install(&self.envoy(), &workload).expect("installed");
    }

    pub fn intercepts(&self) -> BTreeMap<String, Intercept> {
        self.dir().document().expect("readable").intercepts
    }

    /// Is anything remembered for this developer?
    pub fn remembers(&self) -> bool {
        self.folder.path().join("home/.local").exists()
    }

    /// The command of `user`.
    pub fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let home = self.folder.path().join("home");
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("USER", user)
            .env("INJECTOR_ENVOY", self.envoy())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command("bob", arguments))
    }

    /// Starts the command; what it prints is collected.
    pub fn start(&self, user: &str, arguments: &[&str]) -> Running {
        Running::new(&mut self.command(user, arguments))
    }

    /// Adds another developer's intercept, without a machine behind it.
    pub fn add(&self, name: &str, owner: &str, headers: &[(&str, &str)]) -> Intercept {
        let header = |(name, value): &(&str, &str)| MatchHeader {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let intercept = Intercept {
            port: 8080,
            cluster: format!("intercept|8080|{name}"),
            address: "0123456789abcdef".repeat(2),
            owner: owner.to_owned(),
            created: now(),
            headers: headers.iter().map(header).collect(),
            baggage: Vec::new(),
            path: None,
            expires: now() + 3_600,
        };
        let allow = |_: &_| Ok::<(), injector::envoy::EnvoyDirError>(());
        self.dir().add(name, &intercept, allow).expect("added");
        intercept
    }

    /// The text without what differs from run to run.
    pub fn stable(&self, text: &str) -> String {
        text.replace(&self.envoy().to_string_lossy().into_owned(), "DIR")
            .replace(&self.control.to_string(), "CONTROL")
            .replace(&self.folder.path().to_string_lossy().into_owned(), "FOLDER")
    }

    /// Sends what the filter would send after a match.
    pub fn request(&self, address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.data).expect("the relay listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: orders\r\nx-intercept-address: {address}\r\nconnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }
}

fn workload(data: SocketAddr, control: SocketAddr) -> Workload {
    Workload {
        version: WORKLOAD_VERSION,
        name: "orders".to_owned(),
        ports: vec![Port {
            name: "http".to_owned(),
            number: 8080,
            app: SocketAddr::from(([127, 0, 0, 1], 18080)),
            protocol: Protocol::Http,
            url: Some("http://127.0.0.1:8080".to_owned()),
        }],
        relay: Relay {
            data,
            control,
            outbound: None,
        },
        module: Module {
            path: PathBuf::from("/filter.wasm"),
            sha256: String::new(),
        },
        limits: Limits {
            allow_all: true,
            ..Limits::default()
        },
        admin: None,
    }
}

pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("it runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A command under way. Killed when dropped.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Running {
    pub fn new(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        Self {
            stdout: collect(child.stdout.take().expect("piped")),
            stderr: collect(child.stderr.take().expect("piped")),
            child,
        }
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("whole").clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("whole").clone()
    }

    /// Waits until stderr contains the text.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let what = || format!("stderr without {text:?}: {}", self.stderr());
        wait_until(|| self.stderr().contains(text), what);
    }

    /// Waits until it lives.
    #[track_caller]
    pub fn is_live(&self) {
        self.says("renewed while this runs");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end, and for all that it said.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        let mut status: Option<ExitStatus> = None;
        let stderr = Arc::clone(&self.stderr);
        wait_until(
            || {
                status = self.child.try_wait().expect("waited");
                status.is_some()
            },
            || format!("still running: {}", stderr.lock().expect("whole")),
        );
        // The collectors hold one each until the pipes are closed.
        wait_until(
            || Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&stderr) == 2,
            || "pipes still open".to_owned(),
        );
        Ran {
            code: status.and_then(|status| status.code()),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a process in the background if its test fails.
pub struct EndedOnFailure(pub rustix::process::Pid);

impl Drop for EndedOnFailure {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
        }
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let held = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            let mut text = held.lock().expect("whole");
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

/// Waits until the condition holds.
#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{}", otherwise());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A developer's server that answers everything with this text. Lives as long as the test.
pub fn developer_server(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone()?).lines();
                while lines
                    .next()
                    .transpose()?
                    .is_some_and(|line| !line.is_empty())
                {}
                let length = text.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
                )
            });
        }
    });
    port
}

/// A developer's server that signals the arrival of its one request, and answers when the test releases it.
pub fn patient_server() -> (u16, Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let (arrived_tx, arrived_rx) = channel();
    let (release_tx, release_rx) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut first = [0];
            // A probe for a listener connects and sends nothing.
            if stream.read(&mut first).is_ok_and(|count| count > 0) {
                arrived_tx.send(()).expect("the test waits");
                release_rx.recv().expect("the test goes on");
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nat last");
            }
        }
    });
    (port, arrived_rx, release_tx)
}

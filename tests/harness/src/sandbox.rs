//! `injector sandbox` as a new user runs it.
//!
//! It has its own home and temporary directory, so that leftovers are visible.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::binaries;
use crate::command::Process;
use crate::intercept::Developer;
use crate::ports::Port;

/// A running sandbox. Killed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    /// The process.
    pub process: Process,
    envoy: PathBuf,
    url: String,
    dir: TempDir,
}

impl Sandbox {
    /// Starts a sandbox on a free port, and reads its output.
    ///
    /// Without a port, sandboxes of several tests would take the default port or the next free one, and a test could not tell which is its own.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["tmp", "home"] {
            std::fs::create_dir(dir.path().join(name)).expect("a writable directory");
        }
        let port = Port::reserve().number().to_string();
        let mut command = Command::new(binaries::injector());
        command
            .args(["sandbox", "--port", &port])
            .current_dir(dir.path())
            .env("ENVOY", binaries::envoy(binaries::ENVOY))
            .env("INJECTOR_FILTER", binaries::filter())
            .env("HOME", dir.path().join("home"))
            .env("TMPDIR", dir.path().join("tmp"))
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("INJECTOR_ENVOY");
        let mut process = Process::start("sandbox", dir.path(), command);
        let (envoy, url) = process
            .wait_output_with("says what to type", |output| {
                let line = |start: &str| {
                    output
                        .lines()
                        .find_map(|line| Some(line.trim().strip_prefix(start)?.to_owned()))
                };
                let envoy = line("export INJECTOR_ENVOY=")?;
                let url = line("curl http://").map(|rest| format!("http://{rest}"))?;
                // The last line of the output.
                output.contains("curl -H").then_some((envoy, url))
            })
            .await;
        let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
        Self {
            process,
            envoy: PathBuf::from(envoy.trim_matches('\'')),
            url: origin,
            dir,
        }
    }

    /// The URL of the service, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory that Envoy watches.
    pub fn envoy(&self) -> &std::path::Path {
        &self.envoy
    }

    /// The address of the service.
    pub fn addr(&self) -> std::net::SocketAddr {
        let host = self.url.trim_start_matches("http://");
        host.parse().expect("an address")
    }

    /// A developer in another terminal with the printed line pasted.
    pub fn developer(&self, name: &str) -> Developer {
        Developer::new(name, &self.envoy, self.dir.path())
    }

    /// The sandbox's own temporary files.
    pub fn files(&self) -> Vec<PathBuf> {
        let tmp = std::fs::read_dir(self.dir.path().join("tmp")).expect("a directory");
        tmp.map(|entry| entry.expect("an entry").path()).collect()
    }

    /// All processes that it has started, directly or indirectly.
    pub fn descendants(&self) -> Vec<u32> {
        descendants(self.process.id())
    }
}

/// Finds descendants in `/proc/PID/stat`: the parent is two fields after the name in parentheses.
fn descendants(of: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc");
    let parents: Vec<(u32, u32)> = all
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((id, parent.parse().ok()?))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(id, _)| *id),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Does that process still run? A zombie does not.
pub fn is_running(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

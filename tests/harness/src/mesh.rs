//! A workload prepared the way an operator prepares it, in a directory of its own: the relay, the files that Envoy watches, and Envoy in front of the app.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use injector::envoy::Dir;
use injector::manifest::facts::{
    Module, Port as WorkloadPort, Protocol, Relay, WORKLOAD_VERSION, Workload,
};
use intercept_core::{Document, Limits};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::app::{App, hex};
use crate::binaries;
use crate::client::Client;
use crate::command::Process;
use crate::envoy::{Envoy, Start};
use crate::intercept::{Developer, Intercept};
use crate::ports::Port;
use crate::wait;

/// What to bring up.
pub struct Plan {
    ports: Vec<(String, SocketAddr, Protocol)>,
    limits: Limits,
    start: Start,
    relay: Option<SocketAddr>,
    edits: Vec<Box<dyn FnOnce(&mut Value)>>,
}

impl Plan {
    /// A workload with one HTTP port, served by that app, where everything is allowed.
    pub fn of(app: &App) -> Self {
        Self::at(app.addr(), Protocol::Http)
    }

    /// The same with the app somewhere, and a protocol.
    pub fn at(app: SocketAddr, protocol: Protocol) -> Self {
        Self {
            ports: vec![("http".to_owned(), app, protocol)],
            limits: Limits {
                allow_all: true,
                ..Limits::default()
            },
            start: Start {
                program: vec![binaries::envoy(binaries::ENVOY)],
                concurrency: 2,
                deadline: wait::DEADLINE,
            },
            relay: None,
            edits: Vec::new(),
        }
    }

    /// With one more port.
    pub fn and(mut self, name: &str, app: &App, protocol: Protocol) -> Self {
        self.ports.push((name.to_owned(), app.addr(), protocol));
        self
    }

    /// On another version of Envoy.
    pub fn on(mut self, version: &str) -> Self {
        self.start.program = vec![binaries::envoy(version)];
        self
    }

    /// Under a program that makes it slow, such as a profiler, with its arguments.
    pub fn under(mut self, program: impl IntoIterator<Item = PathBuf>) -> Self {
        self.start.program.splice(0..0, program);
        self.start.deadline = 10 * wait::DEADLINE;
        self
    }

    /// Without a relay: what is sent to it arrives at that address, for tests that are not about the tunnel.
    pub fn relay_at(mut self, addr: SocketAddr) -> Self {
        self.relay = Some(addr);
        self
    }

    /// With what the operator allows.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With one worker thread: what one request sees, the next one sees.
    pub fn one_worker(mut self) -> Self {
        self.start.concurrency = 1;
        self
    }

    /// Without anything of ours in Envoy: neither the filter nor the gate's routes.
    pub fn bare(self) -> Self {
        self.edit(|bootstrap| {
            assert!(remove_ours(bootstrap) >= 3, "a filter and two routes");
        })
    }

    /// With a change to Envoy's own configuration, as other operators might make it.
    pub fn edit(mut self, edit: impl FnOnce(&mut Value) + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    /// Brings it up.
    pub async fn start(self) -> Mesh {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (relay, addresses) = match self.relay {
            Some(addr) => (
                None,
                Relay {
                    data: addr,
                    control: addr,
                },
            ),
            None => {
                let (relay, addresses) = start_relay(dir.path()).await;
                (Some(relay), addresses)
            }
        };
        let held: Vec<Port> = self.ports.iter().map(|_| Port::reserve()).collect();
        let mut workload = Workload {
            version: WORKLOAD_VERSION,
            name: "orders".to_owned(),
            ports: self.ports.into_iter().zip(&held).map(port).collect(),
            relay: addresses,
            module: module(),
            limits: self.limits,
            admin: None,
        };
        let files = dir.path().join("envoy");
        Dir::install(&files, &workload).expect("an empty directory");
        let mut bootstrap = crate::bootstrap::bootstrap(&workload, &files);
        for edit in self.edits {
            edit(&mut bootstrap);
        }
        let envoy = Envoy::start(&self.start, &bootstrap, dir.path()).await;
        // Envoy chose its admin port itself, so it is known only now.
        workload.admin = Some(envoy.admin());
        let files = Dir::install(&files, &workload).expect("the same workload again");
        Mesh {
            envoy,
            start: self.start,
            bootstrap,
            relay,
            files,
            _held: held,
            dir,
        }
    }
}

fn port(((name, app, protocol), held): ((String, SocketAddr, Protocol), &Port)) -> WorkloadPort {
    WorkloadPort {
        name,
        number: held.number(),
        app,
        protocol,
        url: Some(format!("http://{}", held.addr())),
    }
}

/// Removes the list elements that are ours by name; how many those were.
fn remove_ours(value: &mut Value) -> usize {
    match value {
        Value::Array(list) => {
            let before = list.len();
            list.retain(|element| {
                !matches!(
                    element["name"].as_str(),
                    Some("intercept" | "intercept-safe")
                )
            });
            before - list.len() + list.iter_mut().map(remove_ours).sum::<usize>()
        }
        Value::Object(members) => members.values_mut().map(remove_ours).sum(),
        _ => 0,
    }
}

fn module() -> Module {
    let path = binaries::filter();
    let bytes = std::fs::read(&path).expect("the filter");
    Module {
        path: path.canonicalize().expect("an absolute path"),
        sha256: hex(&Sha256::digest(bytes)),
    }
}

async fn start_relay(dir: &Path) -> (Process, Relay) {
    let mut command = Command::new(binaries::injector());
    command.args([
        "relay",
        "--listen",
        "127.0.0.1:0",
        "--control",
        "127.0.0.1:0",
    ]);
    let mut relay = Process::start("relay", dir, command);
    let addresses = relay
        .wait_output_with("tells where it listens", |output| {
            let mut addresses = output.split([' ', '\n', ',']).filter_map(|word| {
                word.trim_start_matches("http://")
                    .parse::<SocketAddr>()
                    .ok()
            });
            Some(Relay {
                data: addresses.next()?,
                control: addresses.next()?,
            })
        })
        .await;
    (relay, addresses)
}

/// A workload that runs. Ends with all that it started when dropped.
#[derive(Debug)]
pub struct Mesh {
    /// In front of the app. First, so that it ends, and tells its counters, before the others.
    pub envoy: Envoy,
    start: Start,
    bootstrap: Value,
    relay: Option<Process>,
    files: Dir,
    _held: Vec<Port>,
    dir: TempDir,
}

impl Mesh {
    /// What [`Plan::of`] and no more brings up.
    pub async fn of(app: &App) -> Self {
        Plan::of(app).start().await
    }

    /// The relay.
    pub fn relay(&mut self) -> &mut Process {
        self.relay.as_mut().expect("a mesh with a relay")
    }

    /// Where callers reach the first port of the workload.
    pub fn addr(&self) -> SocketAddr {
        self.addr_of(0)
    }

    /// Where callers reach a port of the workload.
    pub fn addr_of(&self, place: usize) -> SocketAddr {
        let number = self.files.workload().ports[place].number;
        (IpAddr::V4(Ipv4Addr::LOCALHOST), number).into()
    }

    /// The first port's number.
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// A caller of the first port.
    pub fn h1(&self) -> Client {
        Client::h1(self.addr())
    }

    /// A caller of the first port in HTTP/2.
    pub fn h2c(&self) -> Client {
        Client::h2c(self.addr())
    }

    /// A directory for what a test writes beside.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The files that Envoy watches.
    pub fn files(&self) -> &Dir {
        &self.files
    }

    /// A developer at this mesh, with a home of their own.
    pub fn developer(&self, name: &str) -> Developer {
        Developer::new(name, self.files.path(), self.dir.path())
    }

    /// The developer "bob" intercepts the app's port with these arguments, served by `server`; live when this returns.
    pub async fn intercept(&self, server: &App, arguments: &[&str]) -> Intercept {
        self.developer("bob").intercept(server, arguments).await
    }

    /// Ends Envoy and starts it again with the same configuration and files, on the same ports.
    pub async fn restart_envoy(&mut self) {
        self.envoy.kill();
        self.envoy = Envoy::start(&self.start, &self.bootstrap, self.dir.path()).await;
    }

    /// Writes the plugin's configuration by hand, past every check, and waits until Envoy has looked at it.
    pub async fn write_plugin(&self, text: &str) {
        let before = self.plugin_updates().await;
        let workload = self.files.workload();
        let empty = Document {
            version: intercept_core::SCHEMA_VERSION,
            limits: Limits::default(),
            intercepts: Default::default(),
        };
        let path = self.files.path().join("filter.json");
        let version = version_after(&path);
        let mut file =
            injector::manifest::envoy::filter_file(workload, &empty, version).expect("JSON");
        file["resources"][0]["typed_config"]["config"]["configuration"]["value"] = text.into();
        replace(&path, &file);
        wait::until(
            "Envoy has looked at the filter's configuration",
            async || self.plugin_updates().await > before,
        )
        .await;
    }

    /// Writes a document by hand, with the clusters that its entries name.
    pub async fn write_document(&self, document: &Document) {
        let path = self.files.path().join("clusters.json");
        let clusters = injector::manifest::envoy::clusters_file(
            self.files.workload(),
            document,
            version_after(&path),
        );
        let before = self.envoy.stat("cluster_manager.cds.update_attempt").await;
        replace(&path, &clusters);
        wait::until("Envoy has looked at the clusters", async || {
            self.envoy.stat("cluster_manager.cds.update_attempt").await > before
        })
        .await;
        let text = serde_json::to_string(document).expect("JSON");
        self.write_plugin(&text).await;
    }

    /// How often Envoy looked at the filter's configuration, whatever it thought of it.
    async fn plugin_updates(&self) -> u64 {
        let stats = self.envoy.stats("extension_config_discovery").await;
        stats
            .iter()
            .filter(|(name, _)| {
                name.ends_with("update_success") || name.ends_with("update_rejected")
            })
            .map(|(_, count)| count)
            .sum()
    }
}

fn version_after(path: &Path) -> u64 {
    let text = std::fs::read(path).expect("a file that the operator's command wrote");
    let file = serde_json::from_slice(&text).expect("JSON");
    injector::manifest::envoy::version_in(&file).expect("a version") + 1
}

/// As the product does: Envoy sees the old file or the new one.
fn replace(path: &Path, value: &Value) {
    let new = path.with_extension("new");
    std::fs::write(&new, value.to_string()).expect("a writable directory");
    std::fs::rename(&new, path).expect("a writable directory");
}

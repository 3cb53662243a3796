//! A workload prepared the way an operator prepares it, in a directory of its own: the relay, the files that Envoy watches, and Envoy in front of the app.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use injector::envoy::Dir;
use injector::manifest::facts::Relay;
use intercept_core::{Document, Limits};
use serde_json::Value;
use tempfile::TempDir;

use crate::app::App;
use crate::binaries;
use crate::client::Client;
use crate::command::Process;
use crate::envoy::{Envoy, Start};
use crate::intercept::{Developer, Intercept};
pub use crate::plan::Plan;
use crate::ports::Port;
use crate::wait;

/// A workload that runs. Ends with all that it started when dropped.
#[derive(Debug)]
pub struct Mesh {
    /// In front of the app. First, so that it ends, and tells its counters, before the others.
    pub envoy: Envoy,
    pub(crate) start: Start,
    pub(crate) bootstrap: Value,
    pub(crate) relay: Option<Process>,
    pub(crate) files: Dir,
    pub(crate) _held: Vec<Port>,
    pub(crate) dir: TempDir,
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

    /// The relay, out of the mesh: to be ended while the mesh is in use.
    pub fn take_relay(&mut self) -> Process {
        self.relay.take().expect("a mesh with a relay")
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

    /// Starts a relay again where the one before was, which must have ended.
    pub async fn restart_relay(&mut self) {
        let Relay { data, control, .. } = self.files.workload().relay;
        self.relay = Some(start_relay(self.dir.path(), data, control).await.0);
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

/// Starts the release relay and reads where it listens; port 0 lets it choose.
pub(crate) async fn start_relay(
    dir: &Path,
    data: SocketAddr,
    control: SocketAddr,
) -> (Process, Relay) {
    let mut command = Command::new(binaries::injector());
    command
        .args(["relay", "--listen", &data.to_string()])
        .args(["--control", &control.to_string()])
        .env_remove("INJECTOR_ENVOY");
    let mut relay = Process::start("relay", dir, command);
    let addresses = relay
        .wait_output_with("tells where it listens", |output| {
            let address = |name: &str| {
                let line = output.lines().find_map(|line| line.strip_prefix(name));
                line?.trim().parse().ok()
            };
            Some(Relay {
                data: address("data on ")?,
                control: address("control on ")?,
                outbound: None,
            })
        })
        .await;
    (relay, addresses)
}

//! A workload prepared as an operator would, in its own directory.
//!
//! The relay, the files that Envoy watches, and Envoy in front of the app.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use injector::envoy::Dir;
use intercept_core::{Document, Limits};
use intercept_manifest::facts::Relay;
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

/// A running workload. Dropping it ends everything that it started.
#[derive(Debug)]
pub struct Mesh {
    /// The Envoy in front of the app.
    ///
    /// First, so that it ends, and prints its counters, before the others.
    pub envoy: Envoy,
    pub(crate) start: Start,
    pub(crate) bootstrap: Value,
    pub(crate) relay: Option<Process>,
    pub(crate) files: Dir,
    pub(crate) _held: Vec<Port>,
    pub(crate) dir: TempDir,
}

impl Mesh {
    /// The default setup of [`Plan::of`].
    pub async fn of(app: &App) -> Self {
        Plan::of(app).start().await
    }

    /// The relay.
    pub fn relay(&mut self) -> &mut Process {
        self.relay.as_mut().expect("a mesh with a relay")
    }

    /// Takes the relay out of the mesh, to end it while the mesh is in use.
    pub fn take_relay(&mut self) -> Process {
        self.relay.take().expect("a mesh with a relay")
    }

    /// The address of the first port of the workload.
    pub fn addr(&self) -> SocketAddr {
        self.addr_of(0)
    }

    /// The address of a port of the workload.
    pub fn addr_of(&self, place: usize) -> SocketAddr {
        let number = self.files.workload().ports[place].number;
        (IpAddr::V4(Ipv4Addr::LOCALHOST), number).into()
    }

    /// The first port's number.
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// An HTTP/1.1 client for the first port.
    pub fn h1(&self) -> Client {
        Client::h1(self.addr())
    }

    /// An HTTP/2 client for the first port.
    pub fn h2c(&self) -> Client {
        Client::h2c(self.addr())
    }

    /// A directory for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The files that Envoy watches.
    pub fn files(&self) -> &Dir {
        &self.files
    }

    /// A developer with an own home directory.
    pub fn developer(&self, name: &str) -> Developer {
        Developer::new(name, self.files.path(), self.dir.path())
    }

    /// The developer "bob" intercepts the app's port with these arguments, served by `server`.
    ///
    /// Returns once the intercept is live.
    pub async fn intercept(&self, server: &App, arguments: &[&str]) -> Intercept {
        self.developer("bob").intercept(server, arguments).await
    }

    /// The address of an intercept's tunnel, once it is in the filter's file.
    pub fn address_of(&self, name: &str) -> Option<String> {
        let file = std::fs::read(self.files.path().join("filter.json")).expect("the filter's file");
        let file: Value = serde_json::from_slice(&file).expect("JSON");
        let config = &file["resources"][0]["typed_config"]["config"]["configuration"]["value"];
        let config: Value = serde_json::from_str(config.as_str().expect("text")).expect("JSON");
        let address = config["intercepts"][name]["address"].as_str();
        address.map(str::to_owned)
    }

    /// Starts a relay on the ports of the previous one, which must have ended.
    pub async fn restart_relay(&mut self) {
        let Relay { data, control, .. } = self.files.workload().relay;
        self.relay = Some(start_relay(self.dir.path(), data, control).await.0);
    }

    /// Restarts Envoy with the same configuration, files and ports.
    pub async fn restart_envoy(&mut self) {
        self.envoy.kill();
        self.envoy = Envoy::start(&self.start, &self.bootstrap, self.dir.path()).await;
    }

    /// Writes the filter's configuration without any checks, and waits until Envoy has read it.
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
            intercept_manifest::envoy::filter_file(workload, &empty, version).expect("JSON");
        file["resources"][0]["typed_config"]["config"]["configuration"]["value"] = text.into();
        replace(&path, &file);
        wait::until(
            "Envoy has looked at the filter's configuration",
            async || self.plugin_updates().await > before,
        )
        .await;
    }

    /// Writes a document without checks, with the upstream clusters of its entries.
    pub async fn write_document(&self, document: &Document) {
        let path = self.files.path().join("clusters.json");
        let clusters = intercept_manifest::envoy::clusters_file(
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

    /// How often Envoy has read the filter's configuration, accepted or not.
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
    intercept_manifest::envoy::version_in(&file).expect("a version") + 1
}

/// Replaces a file as the product does: Envoy sees the old file or the new one.
fn replace(path: &Path, value: &Value) {
    let new = path.with_extension("new");
    std::fs::write(&new, value.to_string()).expect("a writable directory");
    std::fs::rename(&new, path).expect("a writable directory");
}

/// Starts the release relay, and reads its addresses from its output. Port 0 lets it choose.
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

//! The setup of a mesh for a test: starts relay, files and Envoy, in this order.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use injector::envoy::Dir;
use intercept_core::Limits;
use intercept_manifest::envoy::bootstrap::{BootstrapOptions, bootstrap};
use intercept_manifest::facts::{
    Module, Port as WorkloadPort, Protocol, Relay, WORKLOAD_VERSION, Workload,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::app::{App, hex};
use crate::binaries;
use crate::envoy::{Envoy, Start};
use crate::mesh::{Mesh, start_relay};
use crate::ports::Port;
use crate::wait;

/// A change to Envoy's own configuration.
type Edit = Box<dyn FnOnce(&mut Value)>;

/// The setup of a mesh.
pub struct Plan {
    ports: Vec<(String, SocketAddr, Protocol)>,
    limits: Limits,
    start: Start,
    relay: Option<SocketAddr>,
    options: BootstrapOptions,
    edits: Vec<Edit>,
}

impl Plan {
    /// A workload with one HTTP port, served by that app, without limits.
    pub fn of(app: &App) -> Self {
        Self::at(app.addr(), Protocol::Http)
    }

    /// The same with an app at that address, and a protocol.
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
            options: BootstrapOptions {
                admin: Some((Ipv4Addr::LOCALHOST, 0).into()),
                ..BootstrapOptions::default()
            },
            edits: Vec::new(),
        }
    }

    /// A workload without ports so far.
    pub fn nowhere() -> Self {
        let mut plan = Self::at((Ipv4Addr::LOCALHOST, 0).into(), Protocol::Http);
        plan.ports.clear();
        plan
    }

    /// Adds a port.
    pub fn and(self, name: &str, app: &App, protocol: Protocol) -> Self {
        self.and_at(name, app.addr(), protocol)
    }

    /// Adds a port for an app at that address.
    pub fn and_at(mut self, name: &str, app: SocketAddr, protocol: Protocol) -> Self {
        self.ports.push((name.to_owned(), app, protocol));
        self
    }

    /// Sets the version of Envoy.
    pub fn on(mut self, version: &str) -> Self {
        self.start.program = vec![binaries::envoy(version)];
        self
    }

    /// Runs Envoy under a slow wrapper such as a profiler, with its arguments.
    pub fn under(mut self, program: impl IntoIterator<Item = PathBuf>) -> Self {
        self.start.program.splice(0..0, program);
        self.start.deadline = 10 * wait::DEADLINE;
        self
    }

    /// Replaces the relay by that address, for tests that are not about the tunnel.
    pub fn relay_at(mut self, addr: SocketAddr) -> Self {
        self.relay = Some(addr);
        self
    }

    /// Sets the operator's limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Uses one worker thread, so that consecutive requests see the same state.
    pub fn one_worker(mut self) -> Self {
        self.start.concurrency = 1;
        self
    }

    /// Leaves out the filter and the gate's routes.
    pub fn bare(mut self) -> Self {
        self.options.without_filter = true;
        self
    }

    /// Changes Envoy's own configuration, as other operators might.
    pub fn edit(mut self, edit: impl FnOnce(&mut Value) + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    /// Starts everything.
    pub async fn start(self) -> Mesh {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (relay, addresses) = match self.relay {
            Some(addr) => (
                None,
                Relay {
                    data: addr,
                    control: addr,
                    outbound: None,
                },
            ),
            None => {
                let any = (Ipv4Addr::LOCALHOST, 0).into();
                let (relay, addresses) = start_relay(dir.path(), any, any).await;
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
        let mut bootstrap = bootstrap(&workload, &files, &self.options);
        // The test holds the ports (see `ports`), and lets Envoy bind them as well.
        for listener in bootstrap["static_resources"]["listeners"]
            .as_array_mut()
            .expect("listeners")
        {
            listener["enable_reuse_port"] = true.into();
        }
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

fn module() -> Module {
    let path = binaries::filter();
    let bytes = std::fs::read(&path).expect("the filter");
    Module {
        path: path.canonicalize().expect("an absolute path"),
        sha256: hex(&Sha256::digest(bytes)),
    }
}

//! What kind of mesh a test wants, and how it is brought up: relay, files, Envoy, in this order.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use injector::envoy::Dir;
use injector::manifest::envoy::bootstrap::{BootstrapOptions, bootstrap};
use injector::manifest::facts::{
    Module, Port as WorkloadPort, Protocol, Relay, WORKLOAD_VERSION, Workload,
};
use intercept_core::Limits;
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

/// What to bring up.
pub struct Plan {
    ports: Vec<(String, SocketAddr, Protocol)>,
    limits: Limits,
    start: Start,
    relay: Option<SocketAddr>,
    options: BootstrapOptions,
    edits: Vec<Edit>,
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
            options: BootstrapOptions {
                admin: Some((Ipv4Addr::LOCALHOST, 0).into()),
                ..BootstrapOptions::default()
            },
            edits: Vec::new(),
        }
    }

    /// Without any port yet.
    pub fn nowhere() -> Self {
        let mut plan = Self::at((Ipv4Addr::LOCALHOST, 0).into(), Protocol::Http);
        plan.ports.clear();
        plan
    }

    /// With one more port.
    pub fn and(self, name: &str, app: &App, protocol: Protocol) -> Self {
        self.and_at(name, app.addr(), protocol)
    }

    /// The same with the app somewhere.
    pub fn and_at(mut self, name: &str, app: SocketAddr, protocol: Protocol) -> Self {
        self.ports.push((name.to_owned(), app, protocol));
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
    pub fn bare(mut self) -> Self {
        self.options.without_filter = true;
        self
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
        // The test holds the ports (see `ports`) and lets Envoy in beside it.
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

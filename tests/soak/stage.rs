//! The place of a soak: this machine, or the mesh of the test cluster.
//!
//! Both have a stable relay for long-running requests, and one that is restarted now and then.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use harness::app::App;
use harness::client::{Ask, Client};
use harness::intercept::Developer;
use rustix::process::{Pid, Signal, kill_process};

use crate::contract::{Breaks, Kind, Timeline};
use crate::ledger::Side;
use crate::local::Local;
use crate::mesh::Mesh;
use crate::samples::Watched;
use crate::world::{Lane, Person, World};

/// Developers who come and go.
pub const NAMES: [&str; 24] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ken",
    "laura", "mallory", "nick", "olivia", "peggy", "quentin", "rupert", "sybil", "trent", "ursula",
    "victor", "walter", "yves",
];

/// The common parts of all places.
#[derive(Debug)]
pub struct Stage {
    /// The lanes; the first one has the stable relay.
    pub lanes: Vec<Arc<Lane>>,
    /// Developers who stay the whole time, in the first lane.
    pub holders: Vec<Arc<Person>>,
    /// A client that bypasses Envoy, if possible.
    pub control: Option<Client>,
    /// Parent directories of developers' home directories.
    pub dirs: Vec<PathBuf>,
    /// Time from the end of a killed command until its tunnel is completely gone.
    pub silence: Duration,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Local(Box<Local>),
    Mesh(Box<Mesh>),
}

impl Stage {
    pub fn local(parts: Parts, local: Local) -> Self {
        Self::of(parts, Place::Local(Box::new(local)))
    }

    pub fn mesh(parts: Parts, mesh: Mesh) -> Self {
        Self::of(parts, Place::Mesh(Box::new(mesh)))
    }

    fn of(parts: Parts, place: Place) -> Self {
        let Parts {
            lanes,
            holders,
            control,
            dirs,
            silence,
        } = parts;
        Self {
            lanes,
            holders,
            control,
            dirs,
            silence,
            place,
        }
    }

    /// The name in the report.
    pub fn name(&self) -> &'static str {
        match self.place {
            Place::Local(_) => "sandbox",
            Place::Mesh(_) => "mesh",
        }
    }

    /// The processes to sample. `command` is the first holder's.
    pub fn processes(&mut self, command: u32) -> Vec<Watched> {
        let mut processes = match &mut self.place {
            Place::Local(local) => local.processes(),
            Place::Mesh(mesh) => mesh.processes(),
        };
        processes.push(Watched::plain("command", command));
        processes.push(Watched::plain("(this program)", std::process::id()));
        processes
    }

    /// A counter of changes of the first lane's configuration.
    pub async fn changes(&self) -> u64 {
        match &self.place {
            Place::Local(local) => local.changes().await,
            Place::Mesh(mesh) => mesh.changes(),
        }
    }

    /// Restarts different parts in turn until the soak stops.
    ///
    /// Returns what was restarted, and how often.
    pub async fn restart(&mut self, world: &World, every: Duration) -> Vec<(String, usize)> {
        match &mut self.place {
            Place::Local(local) => local.restart(world, every).await,
            Place::Mesh(mesh) => mesh.restart(world, every).await,
        }
    }

    /// Requests that the relays left to the cluster because a tunnel had missed a beat.
    ///
    /// Includes relays that were restarted.
    pub async fn suspects(&mut self) -> u64 {
        match &mut self.place {
            Place::Local(local) => local.suspects().await,
            Place::Mesh(mesh) => mesh.suspects().await,
        }
    }

    /// Runs additional checks for a few seconds.
    pub async fn look(&mut self, world: &World) {
        match &mut self.place {
            Place::Local(local) => local.fetch_module(world).await,
            Place::Mesh(mesh) => mesh.count(world),
        }
    }
}

/// The common parts of a stage.
pub struct Parts {
    pub lanes: Vec<Arc<Lane>>,
    pub holders: Vec<Arc<Person>>,
    pub control: Option<Client>,
    pub dirs: Vec<PathBuf>,
    pub silence: Duration,
}

/// A developer with an own server.
pub async fn person(
    world: &Arc<World>,
    developer: Developer,
    name: &'static str,
    breaks: &Arc<Breaks>,
    port: &'static str,
    kinds: &'static [Kind],
) -> Arc<Person> {
    Arc::new(Person {
        name,
        developer,
        server: counting(world, name, Side::Server).await,
        timeline: Timeline::default(),
        breaks: Arc::clone(breaks),
        port,
        kinds,
    })
}

/// The count for [`Stage::suspects`] of the relay with that control port.
pub async fn suspects_of(control: SocketAddr) -> u64 {
    let metrics = Client::h1(control).ask(Ask::get("/metrics")).await;
    let metrics = metrics.map(|answer| answer.body).unwrap_or_default();
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let line = metrics
        .lines()
        .find(|line| line.contains("reason=\"suspect\""));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    count.unwrap_or_default()
}

/// An app that counts in the ledger.
pub async fn counting(world: &Arc<World>, name: &str, side: Side) -> App {
    let world = Arc::clone(world);
    let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    App::listen_and_note(name, any, move |id| world.ledger.ran(id, side)).await
}

/// Ends processes of developers with homes in these directories, found by their `HOME`.
///
/// Returns their number.
pub fn end_leftovers(dirs: &[PathBuf]) -> usize {
    let homes: Vec<String> = dirs
        .iter()
        .map(|dir| format!("HOME={}/", dir.display()))
        .collect();
    let mut ended = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(id) = id.and_then(Pid::from_raw) else {
            continue;
        };
        let variables = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = variables.split(|byte| *byte == 0);
        let is_ours =
            variables.any(|one| homes.iter().any(|home| one.starts_with(home.as_bytes())));
        if is_ours && kill_process(id, Signal::KILL).is_ok() {
            ended += 1;
        }
    }
    ended
}

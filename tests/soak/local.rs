//! A soak on this machine: two workloads, each with its Envoy and relay, as in `injector sandbox`.
//!
//! The second relay is restarted now and then.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::app::App;
use harness::binaries;
use harness::client::{Ask, Client};
use harness::command::Process;
use harness::grpc::Grpc;
use harness::mesh::Mesh;
use harness::plan::Plan;
use intercept_manifest::facts::Protocol;
use rustix::process::Signal;

use crate::contract::{Breaks, Kind};
use crate::ledger::Side;
use crate::samples::Watched;
use crate::stage::{NAMES, Parts, Stage, counting, person, suspects_of};
use crate::world::{Lane, Person, World};

/// The kinds of requests on a port of protocol `auto`.
const ALL: &[Kind] = &[
    Kind::Get,
    Kind::Post,
    Kind::Call,
    Kind::Talk,
    Kind::Events,
    Kind::Socket,
];

/// By this time after a relay's restart, each command has found it.
///
/// Their longest pause between attempts is 5 s.
const RECONNECT: Duration = Duration::from_secs(8);

/// Timeout for the shutdown of a relay.
const RELAY_ENDS: Duration = Duration::from_secs(60);

/// The running processes.
#[derive(Debug)]
pub struct Local {
    module_server: Process,
    module_client: Client,
    module_path: String,
    steady: Mesh,
    restless: Mesh,
    restarted: Arc<Breaks>,
    /// The count of relays that were restarted: see [`Stage::suspects`].
    suspects: u64,
    _app: App,
}

/// Starts everything.
pub async fn start(world: &Arc<World>, developers: usize) -> Stage {
    let app = counting(world, "app", Side::App).await;
    let plan = || Plan::at(app.addr(), Protocol::Auto);
    let (steady, restless) = (plan().start().await, plan().start().await);
    let alone = Arc::new(Breaks::default());
    let restarted = Arc::new(Breaks::default());
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for (place, name) in NAMES.into_iter().take(developers).enumerate() {
        let (mesh, breaks, people) = match place % 5 {
            4 => (&restless, &restarted, &mut there),
            _ => (&steady, &alone, &mut here),
        };
        people.push(person(world, mesh.developer(name), name, breaks, "", ALL).await);
    }
    let holder = steady.developer("holder");
    let holder = person(world, holder, "holder", &alone, "", ALL).await;
    let (module_server, module_client, module_path) = serve_module(steady.dir()).await;
    let parts = Parts {
        lanes: vec![
            lane("steady", &steady, here),
            lane("restless", &restless, there),
        ],
        holders: vec![holder],
        control: Some(Client::h1(app.addr())),
        dirs: vec![steady.dir().to_owned(), restless.dir().to_owned()],
        silence: Duration::from_millis(1_500),
    };
    let local = Local {
        module_server,
        module_client,
        module_path,
        steady,
        restless,
        restarted,
        suspects: 0,
        _app: app,
    };
    Stage::local(parts, local)
}

impl Local {
    pub fn processes(&mut self) -> Vec<Watched> {
        let envoy = |what: &str, mesh: &mut Mesh| Watched {
            allocated: Some((
                mesh.envoy.admin(),
                "/stats?filter=^server.memory_allocated$",
            )),
            ..Watched::plain(what, mesh.envoy.process().id())
        };
        vec![
            envoy("Envoy", &mut self.steady),
            envoy("Envoy, its relay restarted", &mut self.restless),
            Watched::plain("relay", self.steady.relay().id()),
            Watched::plain("module server", self.module_server.id()),
        ]
    }

    /// How often the first Envoy has received a configuration of the filter.
    pub async fn changes(&self) -> u64 {
        let stats = self.steady.envoy.stats("extension_config_discovery").await;
        let taken = stats
            .iter()
            .filter(|(name, _)| name.ends_with("config_reload"));
        taken.map(|(_, count)| count).sum()
    }

    /// Waits, and fetches from the module server meanwhile.
    async fn rest(&self, world: &World, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && !world.is_stopping() {
            world.pause(Duration::from_secs(5).min(time)).await;
            self.fetch_module(world).await;
        }
    }

    /// Fetches the filter as a sidecar does.
    pub async fn fetch_module(&self, world: &World) {
        let length = std::fs::metadata(binaries::filter()).map_or(0, |file| file.len());
        let came = self.module_client.ask(Ask::get(&self.module_path)).await;
        let came = came.map(|answer| answer.body.len() as u64);
        if !matches!(came, Ok(came) if came == length) {
            let example = format!("{came:?} for {length} bytes");
            world.deviates("the module server gave something else", &example);
        }
    }

    pub async fn suspects(&self) -> u64 {
        let relays =
            [&self.steady, &self.restless].map(|mesh| mesh.files().workload().relay.control);
        let mut sum = self.suspects;
        for control in relays {
            sum += suspects_of(control).await;
        }
        sum
    }

    /// Restarts the second relay, by SIGTERM and SIGKILL in turn.
    pub async fn restart(&mut self, world: &World, every: Duration) -> Vec<(String, usize)> {
        let mut counts = [0, 0];
        loop {
            self.rest(world, every).await;
            if world.is_stopping() {
                break;
            }
            let is_killed = counts[0] > counts[1];
            counts[usize::from(is_killed)] += 1;
            self.suspects += suspects_of(self.restless.files().workload().relay.control).await;
            self.restarted.begin(is_killed);
            let mut relay = self.restless.take_relay();
            if !is_killed {
                relay.signal(Signal::TERM);
                let ended = tokio::time::timeout(RELAY_ENDS, relay.wait()).await;
                if ended.is_err() {
                    let example = format!("{RELAY_ENDS:?} after SIGTERM");
                    world.deviates("a relay did not end", &example);
                }
            }
            relay.kill();
            self.restless.restart_relay().await;
            tokio::time::sleep(RECONNECT).await;
            self.restarted.end();
        }
        let names = ["relay, SIGTERM", "relay, kill -9"].map(str::to_owned);
        names.into_iter().zip(counts).collect()
    }
}

fn lane(name: &'static str, mesh: &Mesh, people: Vec<Arc<Person>>) -> Arc<Lane> {
    Arc::new(Lane {
        name,
        web: vec![mesh.h1(), mesh.h2c()],
        endpoint: mesh.addr().into(),
        calls: Grpc::new(mesh.addr(), &[]),
        people,
    })
}

/// Starts a module server as in the mesh, where it serves the filter to sidecars.
async fn serve_module(dir: &Path) -> (Process, Client, String) {
    let mut command = Command::new(binaries::injector());
    command
        .args(["module-server", "--listen", "127.0.0.1:0", "--file"])
        .arg(binaries::filter());
    let mut process = Process::start("module-server", dir, command);
    let url = process.wait_output_with("tells where it listens", |output| {
        let (_, rest) = output.split_once("http://")?;
        let (addr, path) = rest.split_once(' ')?.0.split_once('/')?;
        Some((addr.parse::<SocketAddr>().ok()?, format!("/{path}")))
    });
    let (addr, path) = url.await;
    (process, Client::h1(addr), path)
}

//! A soak on the mesh of the test cluster.
//!
//! `orders` with an HTTP and a gRPC port, three replicas, and two relays.
//!
//! One relay serves the holders; the other one is restarted now and then, and so is istiod.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::app::sha256;
use harness::binaries;
use harness::cluster::{DEVELOPERS, Plan, SYSTEM, Stage as Namespace};
use harness::command::Process;
use harness::grpc::Grpc;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::contract::{Breaks, Kind};
use crate::ledger::Side;
use crate::samples::Watched;
use crate::stage::{NAMES, Parts, Stage, person, suspects_of};
use crate::world::{Lane, World};

const HTTP: &[Kind] = &[Kind::Get, Kind::Post, Kind::Events, Kind::Socket];
const GRPC: &[Kind] = &[Kind::Call, Kind::Talk];

/// By this time after a relay's pod is ready, each replica knows it, and each command has found it.
const RECONNECT: Duration = Duration::from_secs(20);

/// Timeout for a pod to come back.
const POD: Duration = Duration::from_secs(180);

/// Candidates for holders. The name determines the relay, and two holders need the same one.
const HOLDERS: [&str; 6] = ["holder", "keeper", "stayer", "waiter", "sitter", "sleeper"];

/// The running parts.
#[derive(Debug)]
pub struct Mesh {
    namespace: Namespace,
    restarted: Arc<Breaks>,
    /// How much of each file of executed requests has been read.
    read: BTreeMap<PathBuf, u64>,
    /// The relay of the holders.
    steady: usize,
    /// The count of relays that were restarted: see [`Stage::suspects`].
    suspects: u64,
}

/// Starts everything.
pub async fn start(world: &Arc<World>, developers: usize) -> Stage {
    let look = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "look-all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": DEVELOPERS}]});
    let plan = Plan::new("soak").replicas(3).object(look);
    let namespace = plan.port("grpc", 9000, 9000, "app").start().await;
    let alone = Arc::new(Breaks::default());
    let restarted = Arc::new(Breaks::default());
    let mut people = Vec::new();
    for (place, name) in NAMES.into_iter().take(developers).enumerate() {
        let (port, kinds) = match place % 4 {
            3 => (":grpc", GRPC),
            _ => (":http", HTTP),
        };
        let developer = namespace.developer(name);
        people.push(person(world, developer, name, &restarted, port, kinds).await);
    }
    let steady = relay_of(HOLDERS[0]);
    let second = HOLDERS[1..].iter().find(|name| relay_of(name) == steady);
    let mut holders = Vec::new();
    for (name, port, kinds) in [(Some(&HOLDERS[0]), ":http", HTTP), (second, ":grpc", GRPC)] {
        let name = name.expect("one of six has the same relay");
        let developer = namespace.developer(name);
        holders.push(person(world, developer, name, &alone, port, kinds).await);
    }
    let lane = Lane {
        name: "mesh",
        web: vec![namespace.h1()],
        endpoint: namespace.endpoint(80),
        calls: Grpc::new(namespace.endpoint(9000), &[]),
        people,
    };
    let parts = Parts {
        lanes: vec![Arc::new(lane)],
        holders,
        control: None,
        dirs: vec![namespace.dir().to_owned()],
        silence: Duration::from_secs(8),
    };
    let mesh = Mesh {
        namespace,
        restarted,
        read: BTreeMap::new(),
        steady,
        suspects: 0,
    };
    Stage::mesh(parts, mesh)
}

/// The index of the relay for an intercept of this name while both are up.
///
/// Computed as the command does.
fn relay_of(name: &str) -> usize {
    let hash = sha256(name.as_bytes());
    usize::from_str_radix(&hash[..8], 16).expect("hexadecimal") % 2
}

/// The kinds of restarts.
const RESTARTS: [&str; 4] = [
    "relay, its process by kill -9",
    "istiod, rolled out",
    "relay, its pod deleted",
    "relay, its pod deleted by force",
];

impl Mesh {
    pub fn processes(&self) -> Vec<Watched> {
        let mut pods = self.namespace.cluster().relays();
        pods.extend(self.namespace.replicas());
        let processes = in_cluster().into_iter();
        let ours = processes.filter_map(|(id, words)| watched(id, &words, &pods));
        ours.collect()
    }

    pub fn changes(&self) -> u64 {
        let plugins = self.namespace.get(&["wasmplugins"]);
        let plugins = plugins["items"].as_array().expect("a list").iter();
        plugins
            .filter_map(|plugin| plugin["metadata"]["generation"].as_u64())
            .sum()
    }

    /// Adds the app's executions since the last call to the ledger.
    pub fn count(&mut self, world: &World) {
        for entry in std::fs::read_dir(self.namespace.counts()).expect("a directory of ours") {
            let path = entry.expect("an entry").path();
            let read = self.read.entry(path.clone()).or_default();
            let mut file = std::fs::File::open(path).expect("a file of ours");
            file.seek(SeekFrom::Start(*read)).expect("a file");
            let mut text = String::new();
            file.read_to_string(&mut text).expect("ASCII");
            // The last line may be incomplete.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            for id in text[..whole].lines() {
                world.ledger.ran(id, Side::App);
            }
            *read += whole as u64;
        }
    }

    pub async fn suspects(&self) -> u64 {
        self.suspects + self.suspects_of(0).await + self.suspects_of(1).await
    }

    /// Queries a relay by port-forward: nothing else reaches the control port.
    async fn suspects_of(&self, relay: usize) -> u64 {
        let pod = format!("pod/injector-relay-{relay}");
        let mut command = Command::new(binaries::tool("kubectl", "kubernetes-client"));
        command.args(["-n", SYSTEM, "port-forward", &pod, ":7070"]);
        let mut forward = Process::start("port-forward", self.namespace.dir(), command);
        let control = forward.wait_output_with("tells where it listens", |output| {
            let (_, rest) = output.split_once("Forwarding from ")?;
            rest.split_once(' ')?.0.parse().ok()
        });
        let control = control.await;
        suspects_of(control).await
    }

    /// Restarts the relay without holders, in three ways, and istiod.
    pub async fn restart(&mut self, world: &World, every: Duration) -> Vec<(String, usize)> {
        let mut counts = [0; RESTARTS.len()];
        let relay = format!("injector-relay-{}", 1 - self.steady);
        for number in 0.. {
            self.rest(world, every).await;
            if world.is_stopping() {
                break;
            }
            let which = number % RESTARTS.len();
            counts[which] += 1;
            let kubectl = &self.namespace.cluster().kubectl;
            if which == 1 {
                let istiod = ["-n", "istio-system", "rollout"];
                kubectl.must(&[&istiod[..], &["restart", "deployment/istiod"]].concat());
                continue;
            }
            self.suspects += self.suspects_of(1 - self.steady).await;
            // The relay explains what it cuts off, unless it is killed: then its sidecar does, except in the last case, where the sidecar is killed as well.
            self.restarted.begin(which == 3);
            let delete = ["-n", SYSTEM, "delete", "pod", &relay, "--wait=false"];
            match which {
                0 => kill_relay(&relay),
                2 => drop(kubectl.must(&delete)),
                _ => drop(kubectl.must(&[&delete[..], &["--force", "--grace-period=0"]].concat())),
            }
            let cluster = self.namespace.cluster();
            self.wait(world, "the relays are back", || cluster.relays().len() == 2)
                .await;
            self.rest(world, RECONNECT).await;
            self.restarted.end();
        }
        RESTARTS
            .map(str::to_owned)
            .into_iter()
            .zip(counts)
            .collect()
    }

    /// Waits, and reads executions meanwhile.
    async fn rest(&mut self, world: &World, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && !world.is_stopping() {
            world.pause(Duration::from_secs(5).min(time)).await;
            self.count(world);
        }
    }

    async fn wait(&self, world: &World, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        // At first the old pod may still look ready.
        tokio::time::sleep(Duration::from_secs(3)).await;
        while !is_so() {
            if began.elapsed() > POD {
                return world.deviates("waited in vain", what);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A process of ours, istiod, or the Envoy of one of these pods.
fn watched(id: u32, words: &[String], pods: &[(String, IpAddr)]) -> Option<Watched> {
    const METRICS: &str = "/stats/prometheus?filter=^server.memory_allocated$";
    let word = |place: usize| words.get(place).map(String::as_str);
    let named = |what: &str| Some(Watched::plain(format!("{what}, {}", host(id)?), id));
    match (word(0)?, word(1)) {
        ("/injector", Some(what @ ("relay" | "controller"))) => named(what),
        ("/injector", Some("module-server")) => named("module server"),
        (program, _) if program.ends_with("pilot-discovery") => Some(Watched::plain("istiod", id)),
        (program, _) if program.ends_with("envoy") => {
            let host = host(id)?;
            let (_, address) = pods.iter().find(|(pod, _)| *pod == host)?;
            Some(Watched {
                // Istio's port for Prometheus.
                allocated: Some(((*address, 15_090).into(), METRICS)),
                ..named("Envoy")?
            })
        }
        _ => None,
    }
}

fn kill_relay(pod: &str) {
    for (id, words) in in_cluster() {
        let is_relay = words.first().is_some_and(|word| word == "/injector")
            && words.get(1).is_some_and(|word| word == "relay");
        if is_relay && host(id).as_deref() == Some(pod) {
            let id = Pid::from_raw(id.cast_signed()).expect("not 0");
            // It may have ended by itself.
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

/// The processes in the cluster's cgroup, with their arguments, which this machine can see.
fn in_cluster() -> Vec<(u32, Vec<String>)> {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words);
        let words = words.split('\0').map(str::to_owned).collect();
        cgroup.contains("/injector-cluster/").then_some((id, words))
    })
    .collect()
}

/// The pod of a process.
fn host(id: u32) -> Option<String> {
    let variables = std::fs::read(format!("/proc/{id}/environ")).ok()?;
    let variables = String::from_utf8_lossy(&variables).into_owned();
    let mut variables = variables.split('\0');
    variables.find_map(|one| Some(one.strip_prefix("HOSTNAME=")?.to_owned()))
}

//! What is compared: the server itself, forwarders, and our tunnel. Each end is a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::binaries;
use harness::command::Process;
use harness::mesh::Mesh;
use harness::plan::Plan;
use harness::ports::Port;
use harness::tunnel::Body;
use harness::wait;
use http::Request;
use intercept_manifest::facts::Protocol;
use tempfile::TempDir;

use crate::load::Server;

/// A way to the server.
#[derive(Clone)]
pub struct Rival {
    pub name: &'static str,
    pub addr: SocketAddr,
    /// The address of our tunnel.
    address: Option<String>,
    /// The ends: in the cluster, and on the developer's machine.
    ends: Vec<u32>,
    _alive: Arc<Mutex<Vec<Box<dyn Send>>>>,
}

impl Rival {
    pub async fn start_all(server: &Server, old: Option<&Path>) -> Vec<Self> {
        let mut all = vec![
            Self::new("direct", loopback(server.port), None, vec![], vec![]),
            bore(server).await,
            rathole(server).await,
            ours("injector", &binaries::injector(), server).await,
        ];
        if let Some(old) = old {
            all.push(ours("injector before", old, server).await);
        }
        all
    }

    fn new(
        name: &'static str,
        addr: SocketAddr,
        address: Option<String>,
        ends: Vec<u32>,
        alive: Vec<Box<dyn Send>>,
    ) -> Self {
        Self {
            name,
            addr,
            address,
            ends,
            _alive: Arc::new(Mutex::new(alive)),
        }
    }

    /// A request on its way.
    pub fn request(&self, method: &str, path: &str, body: Body) -> Request<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "orders");
        if let Some(address) = &self.address {
            request = request.header("x-intercept-address", address);
        }
        request.body(body).expect("a request")
    }

    /// CPU time of both ends so far.
    pub fn cpu(&self) -> [Duration; 2] {
        let of = |end: usize| self.ends.get(end).map_or(Duration::ZERO, |id| cpu(*id));
        [of(0), of(1)]
    }
}

/// User and system time of a process, in the kernel's ticks of 10 ms (`proc_pid_stat(5)`).
fn cpu(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("a running process");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(10 * ticks)
}

/// What is compared, with versions.
pub fn versions() -> Vec<String> {
    let programs = [
        ("bore", binaries::bench_tool("bore")),
        ("rathole", binaries::bench_tool("rathole")),
        ("injector", binaries::injector()),
    ];
    let version = |(name, program): (&str, PathBuf)| {
        let output = Command::new(program).arg("--version").output();
        let output = output.expect("it starts").stdout;
        let text = String::from_utf8_lossy(&output).into_owned();
        // rathole prints a table of its build, with times.
        let version = text.split_whitespace().find(|word| {
            word.starts_with(|first: char| first.is_ascii_digit()) && !word.contains(':')
        });
        format!("{name} {}", version.unwrap_or("of unknown version"))
    };
    programs.map(version).to_vec()
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn start(name: &str, dir: &TempDir, program: PathBuf, arguments: &[&str]) -> Process {
    let mut command = Command::new(program);
    command.args(arguments);
    Process::start(name, dir.path(), command)
}

async fn bore(server: &Server) -> Rival {
    let dir = tempfile::tempdir().expect("a directory");
    let bore = binaries::bench_tool("bore");
    // Its control port is fixed.
    let far = start(
        "bore-server",
        &dir,
        bore.clone(),
        &["server", "--bind-addr", "127.0.0.1"],
    );
    wait::until("bore's server listens", async || is_open(7835)).await;
    let (port, public) = (server.port.to_string(), Port::reserve());
    let public_port = public.number().to_string();
    drop(public);
    let near = start(
        "bore-local",
        &dir,
        bore,
        &["local", &port, "--to", "127.0.0.1", "--port", &public_port],
    );
    let addr = loopback(public_port.parse().expect("a port"));
    wait::until("bore forwards", async || is_open(addr.port())).await;
    let ends = vec![far.id(), near.id()];
    Rival::new(
        "bore",
        addr,
        None,
        ends,
        vec![Box::new(far), Box::new(near), Box::new(dir)],
    )
}

async fn rathole(server: &Server) -> Rival {
    let dir = tempfile::tempdir().expect("a directory");
    let (control, public) = (Port::reserve().number(), Port::reserve().number());
    let config = format!(
        "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
         [server.services.web]\nbind_addr = \"127.0.0.1:{public}\"\n\
         [client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
         [client.services.web]\nlocal_addr = \"127.0.0.1:{}\"\n",
        server.port
    );
    let path = dir.path().join("rathole.toml");
    std::fs::write(&path, config).expect("a writable file");
    let (path, rathole) = (
        path.to_str().expect("UTF-8"),
        binaries::bench_tool("rathole"),
    );
    let far = start("rathole-server", &dir, rathole.clone(), &["--server", path]);
    let near = start("rathole-client", &dir, rathole, &["--client", path]);
    wait::until("rathole forwards", async || is_open(public)).await;
    let ends = vec![far.id(), near.id()];
    let alive: Vec<Box<dyn Send>> = vec![Box::new(far), Box::new(near), Box::new(dir)];
    Rival::new("rathole", loopback(public), None, ends, alive)
}

/// Requests go to the relay, as Envoy sends them; Envoy itself is idle.
async fn ours(name: &'static str, program: &Path, server: &Server) -> Rival {
    let mut mesh: Mesh = Plan::at(loopback(server.port), Protocol::Auto)
        .start()
        .await;
    let relay = mesh.files().workload().relay.clone();
    // The relay of the program that is measured, in place of the mesh's.
    mesh.take_relay();
    let dir = tempfile::tempdir().expect("a directory");
    let (data, control) = (relay.data.to_string(), relay.control.to_string());
    let far = start(
        "relay",
        &dir,
        program.to_owned(),
        &["relay", "--listen", &data, "--control", &control],
    );
    let developer = mesh.developer("bench");
    let port = server.port.to_string();
    let arguments = ["intercept", "orders", "--port", &port, "-q"];
    let mut command = Command::new(program);
    command
        .args(
            [
                &arguments[..],
                &["--name=bench", "--http-header=Coder=bench"],
            ]
            .concat(),
        )
        .env("INJECTOR_ENVOY", mesh.files().path())
        .env("HOME", developer.home());
    let near = Process::start("developer", dir.path(), command);
    let mut address = None;
    wait::until("the intercept is live", async || {
        address = mesh.address_of("bench");
        address.is_some() && is_up(relay.data, address.as_deref().unwrap_or_default()).await
    })
    .await;
    let ends = vec![far.id(), near.id()];
    let alive: Vec<Box<dyn Send>> =
        vec![Box::new(near), Box::new(far), Box::new(mesh), Box::new(dir)];
    Rival::new(name, relay.data, address, ends, alive)
}

async fn is_up(relay: SocketAddr, address: &str) -> bool {
    let request = format!(
        "GET / HTTP/1.1\r\nhost: orders\r\nx-intercept-address: {address}\r\nconnection: close\r\n\r\n"
    );
    let answer = harness::raw::exchange(relay, request.as_bytes()).await;
    harness::raw::status(&answer) == Some(200)
}

fn is_open(port: u16) -> bool {
    std::net::TcpStream::connect(loopback(port)).is_ok()
}

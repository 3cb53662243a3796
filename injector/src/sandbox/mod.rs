//! A local sandbox without a cluster.
//!
//! Envoy, the demo services `orders` and `inventory`, the relay, and the endpoint for connections into the cluster.
//!
//! Owns their processes, ports and files, and removes them all.

mod demo;
mod find;
mod inventory;
mod orders;
mod outbound;
mod process;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use intercept_core::Limits;
use intercept_manifest::envoy::bootstrap::{BootstrapOptions, bootstrap};
use intercept_manifest::facts::{Module, Port, Protocol, Relay, WORKLOAD_VERSION, Workload};
use intercept_outbound::server::DialRecord;
use intercept_tunnel::relay;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::process::Process;
use crate::envoy::{Dir, EnvoyDirError};

pub use self::find::{NotFound, envoy as find_envoy, filter as find_filter};
pub use self::outbound::INVENTORY;

/// The default port, used if it is free.
pub const USUAL_PORT: u16 = 8080;

/// The name of the demo service.
pub const SERVICE: &str = "orders";

/// Size of the queue of dial records.
const RECORDS: usize = 64;

/// Prefix of the temporary directory.
const PREFIX: &str = "injector-sandbox-";

/// Loopback only: no other machine can reach the sandbox.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Timeout of the start.
///
/// Envoy needs less than a second, but more on a machine that compiles at the same time.
const START: Duration = Duration::from_secs(30);

/// Settings of a sandbox.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port to listen on; `None`: [`USUAL_PORT`], or any other port if that is taken.
    pub port: Option<u16>,
    /// The number of Envoy's worker threads.
    pub concurrency: u16,
    /// Envoy's binary.
    pub envoy: PathBuf,
    /// `filter.wasm`.
    pub filter: PathBuf,
}

/// Why the sandbox does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The requested port is taken.
    #[error("port {port}: {error}")]
    Port {
        /// The port.
        port: u16,
        /// The system's error.
        error: io::Error,
    },
    /// An error of a file, a socket or a process.
    #[error("{what}: {error}")]
    Io {
        /// The file, socket or process.
        what: String,
        /// The system's error.
        error: io::Error,
    },
    /// An error of Envoy's files.
    #[error(transparent)]
    Dir(#[from] EnvoyDirError),
    /// Envoy exited, or does not respond.
    #[error("envoy {happened}; the end of its log:")]
    Envoy {
        /// What happened.
        happened: String,
        /// Its last lines.
        log: Vec<String>,
    },
    /// The relay or a service ended.
    #[error("the relay or the service ended: {0}")]
    Ended(String),
}

/// A running sandbox.
///
/// [`Sandbox::stop`] ends it. Its processes and files also go if it is dropped or this process is killed.
#[derive(Debug)]
pub struct Sandbox {
    envoy: Process,
    /// The relay and the demo services.
    tasks: JoinSet<io::Result<()>>,
    dials: Option<mpsc::Receiver<DialRecord>>,
    dir: Dir,
    port: u16,
    // Last, so that the files are removed after the processes that use them.
    files: TempDir,
}

impl Sandbox {
    /// Starts everything, and returns once requests are answered.
    pub async fn start(options: &Options) -> Result<Self, SandboxError> {
        let port = free_port(options.port).await?;
        let files = TempDir::with_prefix(PREFIX).map_err(io_error("temporary files"))?;
        let mut tasks = JoinSet::new();
        let app = listen().await?;
        let (data, control) = (listen().await?, listen().await?);
        let (outbound, inventory) = (listen().await?, listen().await?);
        let (audit, dials) = mpsc::channel(RECORDS);
        let relay = Relay {
            data: address(&data)?,
            control: address(&control)?,
            outbound: Some(address(&outbound)?),
        };
        tasks.spawn(outbound::run(
            outbound,
            relay.control,
            address(&inventory)?,
            audit,
        ));
        let mut workload = workload(port, &app, relay, &options.filter)?;
        tasks.spawn(demo::serve(app, orders::answer));
        tasks.spawn(demo::serve(inventory, inventory::answer));
        tasks.spawn(relay::serve(
            vec![data],
            control,
            None,
            relay::Options::default(),
            std::future::pending(),
        ));
        let dir = Dir::install(&files.path().join("envoy"), &workload)?;
        let mut envoy = start_envoy(options, &workload, &dir, files.path())?;
        workload.admin = Some(ready(&mut envoy, files.path(), port).await?);
        // Envoy's admin address is known only now.
        let dir = Dir::install(dir.path(), &workload)?;
        Ok(Self {
            envoy,
            tasks,
            dials: Some(dials),
            dir,
            port,
            files,
        })
    }

    /// The address of the demo service behind Envoy.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(HOST, self.port)
    }

    /// The directory to pass to `--envoy`.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Takes the channel of dial records, one per connection into the sandbox.
    ///
    /// Connections wait until their record is read.
    pub fn take_dials(&mut self) -> Option<mpsc::Receiver<DialRecord>> {
        self.dials.take()
    }

    /// Waits until a part of the sandbox ends unexpectedly.
    pub async fn failed(&mut self) -> SandboxError {
        tokio::select! {
            happened = self.envoy.ended() => envoy_error(&happened, self.files.path()),
            Some(ended) = self.tasks.join_next() => {
                SandboxError::Ended(format!("{ended:?}"))
            }
        }
    }

    /// Ends all processes and removes the files.
    pub async fn stop(mut self) {
        self.envoy.stop().await;
        self.tasks.shutdown().await;
        // Under the lock, and first what marks it as a directory of ours: a command that writes at this moment leaves nothing behind.
        let _ = self.dir.uninstall(0, true);
    }
}

/// Is this the directory of a sandbox, running or not?
pub fn has_made(dir: &Path) -> bool {
    let name = dir.parent().and_then(Path::file_name);
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

fn io_error(what: impl ToString) -> impl FnOnce(io::Error) -> SandboxError {
    let what = what.to_string();
    |error| SandboxError::Io { what, error }
}

async fn listen() -> Result<TcpListener, SandboxError> {
    TcpListener::bind((HOST, 0))
        .await
        .map_err(io_error("a port of this machine"))
}

fn address(listener: &TcpListener) -> Result<SocketAddr, SandboxError> {
    listener
        .local_addr()
        .map_err(io_error("a port of this machine"))
}

/// Finds a free port. If another process takes it before Envoy does, Envoy exits with an error.
async fn free_port(wanted: Option<u16>) -> Result<u16, SandboxError> {
    match TcpListener::bind((HOST, wanted.unwrap_or(USUAL_PORT))).await {
        Ok(listener) => listener
            .local_addr()
            .map(|address| address.port())
            .map_err(io_error("a port of this machine")),
        Err(error) => match wanted {
            Some(port) => Err(SandboxError::Port { port, error }),
            None => listen()
                .await?
                .local_addr()
                .map(|address| address.port())
                .map_err(io_error("a port of this machine")),
        },
    }
}

fn workload(
    port: u16,
    app: &TcpListener,
    relay: Relay,
    filter: &Path,
) -> Result<Workload, SandboxError> {
    let module = std::path::absolute(filter)
        .and_then(|path| Ok((std::fs::read(&path)?, path)))
        .map_err(io_error(filter.display()))?;
    Ok(Workload {
        version: WORKLOAD_VERSION,
        name: SERVICE.to_owned(),
        ports: vec![Port {
            name: "http".to_owned(),
            number: port,
            app: address(app)?,
            protocol: Protocol::Auto,
            url: Some(format!("http://{HOST}:{port}")),
        }],
        relay,
        module: Module::new(module.1, &module.0),
        // The sandbox has a single user.
        limits: Limits {
            allow_all: true,
            ..Limits::default()
        },
        admin: None,
    })
}

fn start_envoy(
    options: &Options,
    workload: &Workload,
    dir: &Dir,
    files: &Path,
) -> Result<Process, SandboxError> {
    let config = bootstrap(
        workload,
        dir.path(),
        &BootstrapOptions {
            admin: Some(SocketAddr::new(HOST, 0)),
            ..BootstrapOptions::default()
        },
    );
    let path = files.join("bootstrap.json");
    std::fs::write(&path, config.to_string()).map_err(io_error(path.display()))?;
    let concurrency = options.concurrency.to_string();
    let admin = files.join("admin");
    let arguments = [
        "--config-path".as_ref(),
        path.as_os_str(),
        "--admin-address-path".as_ref(),
        admin.as_os_str(),
        "--concurrency".as_ref(),
        concurrency.as_ref(),
        "--disable-hot-restart".as_ref(),
        "--log-level".as_ref(),
        "warning".as_ref(),
        "--log-path".as_ref(),
        files.join("envoy.log").as_os_str(),
    ]
    .map(std::ffi::OsStr::to_owned);
    Process::start(&options.envoy, &arguments, files).map_err(io_error(options.envoy.display()))
}

/// Waits until Envoy reports its admin address and accepts connections for the service.
async fn ready(envoy: &mut Process, files: &Path, port: u16) -> Result<SocketAddr, SandboxError> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        tokio::select! {
            biased;
            happened = envoy.ended() => return Err(envoy_error(&happened, files)),
            () = sleep(Duration::from_millis(5)) => {}
        }
        let admin = std::fs::read_to_string(files.join("admin")).unwrap_or_default();
        let Ok(admin) = admin.trim().parse() else {
            continue;
        };
        if TcpStream::connect((HOST, port)).await.is_ok() {
            return Ok(admin);
        }
    }
    let happened = format!("did not answer within {} s", START.as_secs());
    Err(envoy_error(&happened, files))
}

fn envoy_error(happened: &str, files: &Path) -> SandboxError {
    let log = std::fs::read_to_string(files.join("envoy.log")).unwrap_or_default();
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    SandboxError::Envoy {
        happened: happened.to_owned(),
        log: lines[lines.len().saturating_sub(10)..].to_vec(),
    }
}

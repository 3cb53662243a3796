//! Where intercepts are kept, as the commands see it: one question or change per method, whatever is behind it: a plain Envoy's directory, or a mesh.
//! Knows no flags but the ones that choose the backend, and of tunnels only where they end.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use intercept_core::{Document, Intercept};

use crate::cli::Global;
use crate::curl::quote;
use crate::developer;
use crate::environment::Environment;
use crate::envoy::{Dir, EnvoyDirError, RenewError};
use crate::hint::{Failure, Result};
use crate::manifest::facts::{Port, Protocol, Workload};
use crate::manifest::istio::Kind;
use crate::manifest::{self, cluster};
use crate::mesh::{self, Mesh};
use crate::session::presence::{self, Presence};
use crate::session::relay::RelayEnd;

/// How long a change takes to reach an Envoy that watches files, generously.
const USUAL_ENVOY: Duration = Duration::from_millis(200);
/// The same from the API server through istiod to a sidecar: 0.3 to 0.5 s, measured.
const USUAL_MESH: Duration = Duration::from_millis(1_500);

/// The place where intercepts are kept.
#[derive(Debug)]
pub enum Backend {
    /// The files that a plain Envoy watches.
    Envoy(Dir),
    /// The WasmPlugins of a mesh.
    Mesh(Mesh),
}

/// One workload that can be intercepted.
#[derive(Debug)]
pub enum Target<'b> {
    /// The only one of a plain Envoy's directory.
    Envoy(&'b Dir),
    /// One that an operator of a mesh prepared.
    Mesh(Box<mesh::Target>),
}

/// An intercept, and where it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The workload's namespace, in a mesh.
    pub namespace: Option<String>,
    /// The workload's kind, in a mesh.
    pub kind: Option<Kind>,
    /// The workload's name.
    pub workload: String,
    /// The intercept's name.
    pub name: String,
    /// Its entry.
    pub intercept: Intercept,
}

/// The port that an intercept is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPort {
    /// The workload's own port.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The URL by which people reach it, without a path.
    pub url: String,
}

/// A port that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectPort {
    /// The workload's own port.
    pub number: u16,
    /// A name for it, where it has one.
    pub name: Option<String>,
}

/// Where a tunnel ends, and how requests get there.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The relay.
    pub relay: RelayEnd,
    /// The Envoy cluster that leads to it.
    pub cluster: String,
    /// The mesh's identity of the only workload that may use the tunnel (SPIFFE), where there are identities.
    pub identity: Option<String>,
    /// The relay's number; 0 where there is only one.
    pub replica: u16,
}

/// What is known about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Every Envoy concerned has it.
    Verified,
    /// It is written; whether Envoy has it is not known.
    NotVerified {
        /// The reason, to be shown.
        why: String,
    },
}

/// How many replicas of a workload have a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Replicas {
    /// Those that have it.
    pub live: usize,
    /// Those that there are.
    pub all: usize,
}

/// Why a lease could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRenewed {
    /// Somebody removed the entry.
    Removed,
    /// The name belongs to another tunnel now; who claims it.
    Taken(String),
    /// It may work the next time.
    Failed(String),
}

impl Backend {
    /// The backend that the flags choose: a directory where one is named, else the cluster of the kubeconfig.
    pub async fn open(global: &Global) -> Result<Self> {
        match &global.envoy {
            Some(dir) => Ok(Self::Envoy(Dir::open(dir)?)),
            None => {
                let cluster = crate::commands::connect(global).await?;
                Ok(Self::Mesh(Mesh::new(cluster)))
            }
        }
    }

    /// The same for what must not be left half done.
    pub async fn open_patiently(global: &Global) -> Result<Self> {
        match &global.envoy {
            Some(_) => Self::open(global).await,
            None => {
                let cluster = crate::commands::connect_patiently(global).await?;
                Ok(Self::Mesh(Mesh::new(cluster)))
            }
        }
    }

    /// Looks at all namespaces.
    pub fn everywhere(mut self) -> Result<Self> {
        match &mut self {
            Self::Envoy(_) => {
                return Err(Failure::usage(
                    "-A: a plain Envoy has no namespaces",
                    "leave it out; for a cluster: unset INJECTOR_ENVOY",
                ));
            }
            Self::Mesh(mesh) => mesh.everywhere(),
        }
        Ok(self)
    }

    /// The name by which a developer knows it: what is remembered under it outlives a cluster that is made anew.
    pub fn identity(&self) -> String {
        match self {
            Self::Envoy(dir) => envoy_identity(dir.path()),
            Self::Mesh(mesh) => mesh.identity(),
        }
    }

    /// The name under which its intercepts in the background are remembered, in this namespace where one is given; no other backend has it.
    pub fn detached_in(&self, namespace: Option<&str>) -> String {
        match self {
            Self::Envoy(_) => self.identity(),
            Self::Mesh(mesh) => mesh.detached_in(namespace),
        }
    }

    /// Who the caller is: as the API server knows them, else by this machine's user name.
    pub async fn owner(&self) -> Result<String> {
        match self {
            Self::Envoy(_) => Ok(developer::name()),
            Self::Mesh(mesh) => mesh.owner().await,
        }
    }

    /// What the developer calls TARGET.
    pub async fn target(&self, target: &str) -> Result<Target<'_>> {
        match self {
            Self::Envoy(dir) => named(dir, target).map(|_| Target::Envoy(dir)),
            Self::Mesh(mesh) => {
                let target = mesh::Target::open(mesh.cluster(), target).await?;
                Ok(Target::Mesh(Box::new(target)))
            }
        }
    }

    /// All intercepts.
    pub async fn all(&self) -> Result<Vec<Found>> {
        let dir = match self {
            Self::Envoy(dir) => dir,
            Self::Mesh(mesh) => return mesh.all().await,
        };
        let intercepts = dir.document()?.intercepts.into_iter();
        let found = intercepts.map(|(name, intercept)| Found {
            namespace: None,
            kind: None,
            workload: dir.workload().name.clone(),
            name,
            intercept,
        });
        Ok(found.collect())
    }

    /// Is the developer machine of each connected? In the same order.
    pub async fn presences(&self, all: &[Found]) -> Vec<Presence> {
        match self {
            Self::Envoy(dir) => {
                let relay = RelayEnd::tcp(dir.workload().relay.control);
                let addresses = all.iter().map(|found| found.intercept.address.as_str());
                presence::ask_all(&relay, &addresses.collect::<Vec<_>>()).await
            }
            Self::Mesh(mesh) => mesh.presences(all).await,
        }
    }

    /// How many replicas have each; `None` where that cannot be seen. In the same order.
    pub async fn replicas(&self, all: &[Found]) -> Vec<Option<Replicas>> {
        match self {
            Self::Envoy(_) => vec![None; all.len()],
            Self::Mesh(mesh) => mesh.replicas(all).await,
        }
    }

    /// Removes the entry of an intercept if it still is the one that was found. Its cluster goes after [`Backend::wait_gone`], by [`Backend::clear`].
    pub async fn remove(&self, found: &Found) -> Result<bool> {
        match self {
            Self::Envoy(dir) => {
                let removed = remove(dir, &found.name, &found.intercept.address)?;
                Ok(removed.is_some())
            }
            Self::Mesh(mesh) => mesh.remove(found).await,
        }
    }

    /// Waits until requests are no longer decided by an intercept of this name; where that cannot be seen, for as long as it usually takes.
    pub async fn wait_gone(&self, found: &Found, timeout: Duration) -> Live {
        let (live, usual) = match self {
            Self::Envoy(dir) => (dir.wait_gone(&found.name, timeout).await, USUAL_ENVOY),
            Self::Mesh(mesh) => (mesh.wait_gone(found, timeout).await, USUAL_MESH),
        };
        settled(live, usual).await
    }

    /// Is a request under way through the tunnel of this intercept? Then its command lives, and clears the cluster away when that has ended.
    pub async fn is_busy(&self, found: &Found) -> bool {
        let ends = match self {
            Self::Envoy(dir) => vec![RelayEnd::tcp(dir.workload().relay.control)],
            Self::Mesh(mesh) => mesh.relay_ends().await,
        };
        let address = &found.intercept.address;
        let asked = ends.iter().map(|end| presence::is_busy(end, address));
        join_all(asked).await.contains(&true)
    }

    /// Removes the cluster of an intercept whose entry is gone.
    pub async fn clear(&self, found: &Found) -> Result<()> {
        match self {
            Self::Envoy(dir) => clear(dir, &found.name),
            Self::Mesh(mesh) => mesh.clear(found).await,
        }
    }

    /// Removes what nobody renewed for a long time.
    pub async fn sweep(&self) -> Result<()> {
        match self {
            Self::Envoy(dir) => Ok(dir.sweep(now()).map(drop)?),
            Self::Mesh(mesh) => mesh.sweep().await,
        }
    }

    /// Seconds since the epoch, by the clock that leases are counted by.
    pub async fn now(&self) -> Result<u64> {
        match self {
            Self::Envoy(_) => Ok(now()),
            Self::Mesh(mesh) => mesh.now().await,
        }
    }
}

impl Target<'_> {
    /// The workload's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Envoy(dir) => &dir.workload().name,
            Self::Mesh(target) => target.name(),
        }
    }

    /// Who the caller is.
    pub fn owner(&self) -> String {
        match self {
            Self::Envoy(_) => developer::name(),
            Self::Mesh(target) => target.owner().to_owned(),
        }
    }

    /// The port that `--port` means: by name or number, else the only one.
    pub fn port(&self, wanted: Option<&str>) -> Result<TargetPort> {
        match self {
            Self::Envoy(dir) => {
                let workload = dir.workload();
                let port = choose_port(workload, wanted)?;
                let by_name = || format!("http://{}:{}", workload.name, port.number);
                Ok(TargetPort {
                    number: port.number,
                    protocol: port.protocol,
                    url: port.url.clone().unwrap_or_else(by_name),
                })
            }
            Self::Mesh(target) => target.port(wanted),
        }
    }

    /// Refuses what would not work here, before anything is opened or written. `all`: everybody's requests are asked for.
    pub fn check(&self, port: u16, all: bool) -> Result<()> {
        match self {
            Self::Envoy(_) => Ok(()),
            Self::Mesh(target) => target.check(port, all),
        }
    }

    /// The environment of the container that serves this port.
    pub async fn environment(&self, port: u16) -> Result<Environment> {
        match self {
            Self::Envoy(_) => Err(no_environment()),
            Self::Mesh(target) => target.environment(port).await,
        }
    }

    /// Where the tunnel of this address ends.
    pub async fn place(&self, name: &str, port: u16, address: &str) -> Result<Placement> {
        match self {
            Self::Envoy(dir) => Ok(Placement {
                relay: RelayEnd::tcp(dir.workload().relay.control),
                cluster: cluster::intercept_name(name),
                identity: None,
                replica: 0,
            }),
            Self::Mesh(target) => target.place(name, port, address).await,
        }
    }

    /// The same besides the relays of these numbers, which are full; `None` where there is no other one.
    pub async fn place_beside(
        &self,
        name: &str,
        port: u16,
        address: &str,
        full: &BTreeSet<u16>,
    ) -> Option<Placement> {
        match self {
            Self::Envoy(_) => None,
            Self::Mesh(target) => target.place_beside(name, port, address, full).await.ok(),
        }
    }

    /// Is the developer machine of this address connected?
    pub async fn presence(&self, address: &str) -> Presence {
        match self {
            Self::Envoy(dir) => {
                presence::ask(&RelayEnd::tcp(dir.workload().relay.control), address).await
            }
            Self::Mesh(target) => target.presence(address).await,
        }
    }

    /// All intercepts of the workload, as they are this moment.
    pub async fn document(&self) -> Result<Document> {
        match self {
            Self::Envoy(dir) => Ok(dir.document()?),
            Self::Mesh(target) => target.document().await,
        }
    }

    /// What the filter is given, as it stands there: with what it leaves out.
    pub async fn configuration(&self) -> Result<Vec<u8>> {
        match self {
            Self::Envoy(dir) => Ok(dir.configuration()?.into_bytes()),
            Self::Mesh(target) => target.configuration().await,
        }
    }

    /// The intercept of this name, as it is this moment.
    pub async fn find(&self, name: &str) -> Result<Option<Intercept>> {
        let dir = match self {
            Self::Envoy(dir) => dir,
            Self::Mesh(target) => return target.find(name).await,
        };
        match dir.document() {
            Ok(mut document) => Ok(document.intercepts.remove(name)),
            Err(EnvoyDirError::NotInstalled(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What would be written besides the entry, to be shown.
    pub fn objects(
        &self,
        name: &str,
        intercept: &Intercept,
        replica: u16,
    ) -> Result<Vec<serde_json::Value>> {
        match self {
            Self::Envoy(dir) => {
                let workload = dir.workload();
                let port = workload.port_number(intercept.port);
                let cluster = port.map(|port| manifest::envoy::cluster(workload, name, port));
                Ok(cluster.into_iter().collect())
            }
            Self::Mesh(target) => target.objects(name, intercept, replica),
        }
    }

    /// Adds an intercept if `check` allows it for what is there at that moment. Where somebody else writes at the same time, it is asked again.
    pub async fn add(
        &self,
        name: &str,
        intercept: &Intercept,
        replica: u16,
        check: &(dyn Fn(&Document) -> Result<()> + Sync),
    ) -> Result<()> {
        match self {
            Self::Envoy(dir) => dir.add(name, intercept, check),
            Self::Mesh(target) => target.add(name, intercept, replica, check).await,
        }
    }

    /// Moves the end of a lease, in seconds since the epoch.
    pub async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        let dir = match self {
            Self::Envoy(dir) => dir,
            Self::Mesh(target) => return target.renew(name, address, expires).await,
        };
        dir.renew(name, address, expires)
            .map_err(|error| match error {
                RenewError::Gone => NotRenewed::Removed,
                RenewError::Taken { owner } => NotRenewed::Taken(owner),
                RenewError::Dir(EnvoyDirError::NotInstalled(_)) => NotRenewed::Removed,
                RenewError::Dir(error) => NotRenewed::Failed(error.to_string()),
            })
    }

    /// Who removed the intercept of this name, where that can be known.
    pub async fn who_removed(&self, name: &str) -> Option<String> {
        match self {
            Self::Envoy(_) => None,
            Self::Mesh(target) => target.who_removed(name).await,
        }
    }

    /// Removes the entry of an intercept if it still is that tunnel's. Its cluster goes after [`Target::wait_gone`], by [`Target::clear`].
    pub async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        match self {
            Self::Envoy(dir) => remove(dir, name, address),
            Self::Mesh(target) => target.remove(name, address).await,
        }
    }

    /// Removes what nobody renewed for a long time.
    pub async fn sweep(&self) -> Result<()> {
        match self {
            Self::Envoy(dir) => Ok(dir.sweep(now()).map(drop)?),
            // Somebody else's leftovers are no reason to fail, nor is missing the right to clear them away.
            Self::Mesh(target) => {
                let _ = target.sweep().await;
                Ok(())
            }
        }
    }

    /// Waits until requests are decided by the entry of this address, and its cluster is there.
    pub async fn wait_live(
        &self,
        name: &str,
        intercept: &Intercept,
        timeout: Duration,
        progress: &(dyn Fn(Replicas) + Sync),
    ) -> Live {
        let Intercept {
            address, cluster, ..
        } = intercept;
        match self {
            Self::Envoy(dir) => dir.wait_live(name, address, timeout).await,
            Self::Mesh(target) => {
                target
                    .wait(name, Some(address), Some(cluster), timeout, progress)
                    .await
            }
        }
    }

    /// Waits until requests are no longer decided by an entry of this name; where that cannot be seen, for as long as it usually takes.
    pub async fn wait_gone(&self, name: &str, timeout: Duration) -> Live {
        let (live, usual) = match self {
            Self::Envoy(dir) => (dir.wait_gone(name, timeout).await, USUAL_ENVOY),
            Self::Mesh(target) => {
                let live = target.wait(name, None, None, timeout, &|_| {}).await;
                (live, USUAL_MESH)
            }
        };
        settled(live, usual).await
    }

    /// Removes the cluster of an intercept whose entry is gone.
    pub async fn clear(&self, name: &str) -> Result<()> {
        match self {
            Self::Envoy(dir) => clear(dir, name),
            Self::Mesh(target) => target.clear(name).await,
        }
    }

    /// How long an intercept that ends may wait for somebody to take its removal.
    pub fn undo_patience(&self) -> Duration {
        match self {
            Self::Envoy(_) => Duration::ZERO,
            // An API server that comes back refuses everybody for some seconds, until it has read who may do what.
            Self::Mesh(_) => Duration::from_secs(40),
        }
    }

    /// How often a session should look whether its entry is still there.
    pub fn look_every(&self) -> Duration {
        match self {
            Self::Envoy(_) => Duration::from_secs(2),
            // Each look is a request to the API server, from every developer.
            Self::Mesh(_) => Duration::from_secs(5),
        }
    }

    /// Seconds since the epoch, by the clock that leases are counted by.
    pub async fn now(&self) -> Result<u64> {
        match self {
            Self::Envoy(_) => Ok(now()),
            Self::Mesh(target) => target.now().await,
        }
    }
}

/// A directory has one workload, and TARGET must mean it.
fn named<'d>(dir: &'d Dir, target: &str) -> Result<&'d Workload> {
    let workload = dir.workload();
    let name = target.split_once('/').map_or(target, |(_, name)| name);
    if name == workload.name {
        return Ok(workload);
    }
    Err(Failure::failed(
        format!(
            "{target}: no such service, {} has only {}",
            dir.path().display(),
            workload.name
        ),
        format!(
            "its name is {0}, as in: injector intercept {0}",
            quote(&workload.name)
        ),
    ))
}

async fn settled(live: Live, usual: Duration) -> Live {
    if let Live::NotVerified { .. } = live {
        tokio::time::sleep(usual).await;
    }
    live
}

fn clear(dir: &Dir, name: &str) -> Result<()> {
    match dir.clear_clusters(&[name]) {
        Err(EnvoyDirError::NotInstalled(_)) => Ok(()),
        other => Ok(other?),
    }
}

fn no_environment() -> Failure {
    Failure::usage(
        "--env-file: nothing is known of the environment of a program behind a plain Envoy, only of a workload of a cluster",
        "leave it out; for a cluster: unset INJECTOR_ENVOY",
    )
}

fn remove(dir: &Dir, name: &str, address: &str) -> Result<Option<Intercept>> {
    match dir.remove(name, Some(address)) {
        // Uninstalled meanwhile: then it is gone as well.
        Err(EnvoyDirError::NotInstalled(_)) => Ok(None),
        removed => Ok(removed?),
    }
}

/// The directory that the flags name.
pub fn directory(global: &Global) -> Result<&Path> {
    global.envoy.as_deref().ok_or_else(|| {
        Failure::usage(
            "where to intercept is not said: expected --envoy DIR or the variable INJECTOR_ENVOY",
            "injector sandbox, and paste the line that it prints: export INJECTOR_ENVOY=…",
        )
    })
}

/// [`Backend::detached_in`] of the backend that the flags choose, also where a directory is not prepared any more.
pub async fn detached(global: &Global) -> Result<String> {
    match &global.envoy {
        Some(dir) => {
            let absolute = std::path::absolute(dir);
            Ok(envoy_identity(absolute.as_deref().unwrap_or(dir)))
        }
        None => Ok(Backend::open(global).await?.detached_in(None)),
    }
}

fn envoy_identity(dir: &Path) -> String {
    format!("envoy:{}", dir.display())
}

/// Seconds since the epoch, by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
/// The port that `--port` means: by name or number, else the only one.
fn choose_port<'w>(workload: &'w Workload, wanted: Option<&str>) -> Result<&'w Port> {
    let list = || {
        let ports = workload.ports.iter();
        let ports: Vec<String> = ports
            .map(|port| format!("{} ({})", port.name, port.number))
            .collect();
        ports.join(", ")
    };
    match (wanted, workload.ports.as_slice()) {
        (Some(wanted), ports) => workload.port(wanted).ok_or_else(|| {
            let example = ports.first().map_or("http", |port| port.name.as_str());
            Failure::usage(
                format!(
                    "port {wanted}: {} has no such port, it has {}",
                    workload.name,
                    list()
                ),
                format!("injector intercept {} --port 3000:{example}", workload.name),
            )
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(Failure::failed(
            format!("{}: no port speaks HTTP", workload.name),
            "injector install --help",
        )),
        (None, [first, ..]) => Err(Failure::usage(
            format!("{} has several ports: {}", workload.name, list()),
            format!(
                "injector intercept {} --port 3000:{}",
                workload.name, first.name
            ),
        )),
    }
}

impl From<EnvoyDirError> for Failure {
    fn from(error: EnvoyDirError) -> Self {
        let hint = match &error {
            EnvoyDirError::NotInstalled(dir) => format!(
                "injector sandbox prints the directory to use; an operator prepares one with: injector --envoy {} install --help",
                quote(&dir.to_string_lossy())
            ),
            EnvoyDirError::Io { path, .. } => format!("ls -ld {}", quote(&path.to_string_lossy())),
            EnvoyDirError::Unreadable { path, .. } => {
                format!("cat {}", quote(&path.to_string_lossy()))
            }
            EnvoyDirError::UnknownPort { .. } => "injector intercept --help".to_owned(),
            EnvoyDirError::PortInUse { .. } | EnvoyDirError::Live { .. } => {
                "injector list, then: injector leave NAME".to_owned()
            }
        };
        Self::failed(error, hint)
    }
}

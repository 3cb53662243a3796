//! Where intercepts are kept, as the commands see it: one question or change per method, whatever is behind it: a plain Envoy's directory, or a mesh.
//! Knows no flags but the ones that choose the backend, and of tunnels only where they end.

mod plain;
mod target;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use self::plain::{clear, named, remove};
use crate::args::{Global, connect, connect_patiently};
use crate::developer;
use crate::envoy::{Dir, USUAL_ENVOY};
use crate::hint::{Failure, Result};
use crate::manifest::cluster::TAKEN;
use crate::mesh::{self, Mesh};
use crate::model::{Found, Live, settled};
use crate::tunnel::presence::{self, HANDOVER, Presence, Traffic};
use crate::tunnel::relay_end::RelayEnd;

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

impl Backend {
    /// The backend that the flags choose: a directory where one is named, else the cluster of the kubeconfig.
    pub async fn open(global: &Global) -> Result<Self> {
        match &global.envoy {
            Some(dir) => Ok(Self::Envoy(Dir::open(dir)?)),
            None => {
                let cluster = connect(global).await?;
                Ok(Self::Mesh(Mesh::new(cluster)))
            }
        }
    }

    /// The same for what must not be left half done.
    pub async fn open_patiently(global: &Global) -> Result<Self> {
        match &global.envoy {
            Some(_) => Self::open(global).await,
            None => {
                let cluster = connect_patiently(global).await?;
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
        let document = dir.document()?;
        let intercepts = document.intercepts.into_iter();
        let found = intercepts.map(|(name, intercept)| Found {
            limits: document.limits.clone(),
            namespace: None,
            kind: None,
            workload: dir.workload().name.clone(),
            name,
            intercept,
            refusal: None,
            replicas: None,
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

    /// Removes the entry of an intercept if it still is the one that was found. What is left goes after [`Backend::wait_gone`], by [`Backend::clear`].
    pub async fn remove(&self, found: &Found) -> Result<bool> {
        match self {
            Self::Envoy(dir) => {
                let removed = remove(dir, &found.name, &found.intercept.address)?;
                Ok(removed.is_some())
            }
            Self::Mesh(mesh) => mesh.remove(found).await,
        }
    }

    /// Waits until requests are no longer decided by this intercept; where that cannot be seen, for as long as it usually takes.
    pub async fn wait_gone(&self, found: &Found, timeout: Duration) -> Live {
        match self {
            Self::Envoy(dir) => {
                let live = dir.wait_gone(&found.name, timeout).await;
                settled(live, USUAL_ENVOY).await
            }
            Self::Mesh(mesh) => mesh.wait_gone(found, timeout).await,
        }
    }

    /// Clears away what is left of intercepts whose entries are gone. Returns the first failure; what one of them meets does not leave the others half done.
    pub async fn clear(&self, all: &[&Found]) -> Result<()> {
        let mut outcome = Ok(());
        match self {
            Self::Envoy(dir) => {
                // What was decided a moment ago has reached the relay by then, or was refused by it and is answered elsewhere.
                sleep(HANDOVER.max(youth(all))).await;
                let relay = RelayEnd::tcp(dir.workload().relay.control);
                let addresses = all.iter().map(|found| found.intercept.address.as_str());
                let traffic = presence::traffic(&relay, &addresses.collect::<Vec<_>>()).await;
                for (found, traffic) in all.iter().zip(traffic) {
                    if !is_busy(found, traffic) {
                        outcome = outcome.and(clear(dir, &found.intercept.cluster));
                    }
                }
            }
            Self::Mesh(mesh) => {
                for found in all {
                    outcome = outcome.and(mesh.clear(found).await);
                }
            }
        }
        outcome
    }

    /// Removes what nobody renewed for a long time; in a mesh the controller does.
    pub fn sweep(&self) -> Result<()> {
        match self {
            Self::Envoy(dir) => Ok(dir.sweep(now()).map(drop)?),
            Self::Mesh(_) => Ok(()),
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

/// How long the youngest cluster has to stay yet.
fn youth(all: &[&Found]) -> Duration {
    let created = all.iter().map(|found| found.intercept.created).max();
    let age = now().saturating_sub(created.unwrap_or(0));
    // Of `created` the second is known.
    (TAKEN + Duration::from_secs(1)).saturating_sub(Duration::from_secs(age))
}

/// May a request be under way through its tunnel? Then its command lives, and clears the cluster away when that has ended.
/// Where the relay does not say, one may be while the lease runs; a cluster that stays behind so is cleared away after it.
fn is_busy(found: &Found, traffic: Traffic) -> bool {
    match traffic {
        Traffic::UnderWay => true,
        Traffic::None => false,
        Traffic::Unknown => found.intercept.expires > now(),
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

/// A path that is no text is spelled out: two of them are two.
fn envoy_identity(dir: &Path) -> String {
    match dir.to_str() {
        Some(text) => format!("envoy:{text}"),
        None => format!("envoy:{dir:?}"),
    }
}

/// Seconds since the epoch, by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

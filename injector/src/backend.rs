//! Where intercepts are kept, as the commands see it: one question or change per method, whatever is behind it. Today that is a plain Envoy's directory.
//! Knows no flags but the ones that choose the backend, and nothing of tunnels.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use intercept_core::{Document, Intercept};

use crate::cli::Global;
use crate::curl::quote;
use crate::envoy::{Dir, EnvoyDirError, Live, RenewError};
use crate::hint::{Failure, Result};
use crate::manifest::facts::{Port, Workload};
use crate::manifest::{self, cluster};

/// The place where intercepts are kept.
#[derive(Debug)]
pub enum Backend {
    /// The files that a plain Envoy watches.
    Envoy(Dir),
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
    /// The backend that the flags choose.
    pub fn open(global: &Global) -> Result<Self> {
        Ok(Self::Envoy(Dir::open(directory(global)?)?))
    }

    /// A name that no other backend has.
    pub fn identity(&self) -> String {
        match self {
            Self::Envoy(dir) => format!("envoy:{}", dir.path().display()),
        }
    }

    /// What the developer calls TARGET.
    pub fn workload(&self, target: &str) -> Result<&Workload> {
        let Self::Envoy(dir) = self;
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

    /// The workload of an intercept.
    pub fn only_workload(&self) -> &Workload {
        let Self::Envoy(dir) = self;
        dir.workload()
    }

    /// All intercepts of a workload, as they are this moment.
    pub fn document(&self) -> Result<Document> {
        let Self::Envoy(dir) = self;
        Ok(dir.document()?)
    }

    /// The intercept of this name, as it is this moment.
    pub fn find(&self, name: &str) -> Result<Option<Intercept>> {
        let Self::Envoy(dir) = self;
        match dir.document() {
            Ok(mut document) => Ok(document.intercepts.remove(name)),
            Err(EnvoyDirError::NotInstalled(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The cluster that takes the requests of an intercept.
    pub fn cluster(&self, name: &str) -> String {
        cluster::intercept_name(name)
    }

    /// What stands for that cluster in this backend, to be shown.
    pub fn cluster_object(&self, name: &str, port: u16) -> Option<serde_json::Value> {
        let Self::Envoy(dir) = self;
        let workload = dir.workload();
        Some(manifest::envoy::cluster(
            workload,
            name,
            workload.port_number(port)?,
        ))
    }

    /// Adds an intercept if `check` allows it for what is there at that moment.
    pub fn add(
        &self,
        name: &str,
        intercept: &Intercept,
        check: impl FnOnce(&Document) -> Result<()>,
    ) -> Result<()> {
        let Self::Envoy(dir) = self;
        dir.add(name, intercept, check)
    }

    /// Moves the end of a lease, in seconds since the epoch.
    pub fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        let Self::Envoy(dir) = self;
        dir.renew(name, address, expires)
            .map_err(|error| match error {
                RenewError::Gone => NotRenewed::Removed,
                RenewError::Taken { owner } => NotRenewed::Taken(owner),
                RenewError::Dir(EnvoyDirError::NotInstalled(_)) => NotRenewed::Removed,
                RenewError::Dir(error) => NotRenewed::Failed(error.to_string()),
            })
    }

    /// Removes an intercept; with an address only if the entry still is that tunnel's.
    pub fn remove(&self, name: &str, address: Option<&str>) -> Result<Option<Intercept>> {
        let Self::Envoy(dir) = self;
        match dir.remove(name, address) {
            // Uninstalled meanwhile: then it is gone as well.
            Err(EnvoyDirError::NotInstalled(_)) => Ok(None),
            removed => Ok(removed?),
        }
    }

    /// Removes what nobody renewed for a long time.
    pub fn sweep(&self) -> Result<Vec<String>> {
        let Self::Envoy(dir) = self;
        Ok(dir.sweep(now())?)
    }

    /// Waits until requests are decided by the entry of this address.
    pub async fn wait_live(&self, name: &str, address: &str, timeout: Duration) -> Live {
        let Self::Envoy(dir) = self;
        dir.wait_live(name, address, timeout).await
    }

    /// Waits until requests are no longer decided by an entry of this name.
    pub async fn wait_gone(&self, name: &str, timeout: Duration) -> Live {
        let Self::Envoy(dir) = self;
        dir.wait_gone(name, timeout).await
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

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// The port that `--port` means: by name or number, else the only one.
pub fn choose_port<'w>(workload: &'w Workload, wanted: Option<&str>) -> Result<&'w Port> {
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

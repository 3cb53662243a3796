//! The plain-Envoy backend: a directory of files that Envoy watches, changed atomically and under a lock. The only code that writes them.
//! What stands in them is `manifest`'s business; what an intercept may say is `intercept-core`'s.

mod error;
mod files;
mod live;

use std::path::{Path, PathBuf};
use std::time::Duration;

use intercept_core::{Document, Intercept, Limits, SCHEMA_VERSION};
use intercept_manifest::facts::Workload;
use serde_json::{Map, Value};

pub use self::error::{EnvoyDirError, RenewError};
use self::files::{Locked, State};
use self::live::Awaited;
pub use self::live::{cluster_path, names};
use crate::model::Live;

/// How long an entry stays after its lease has ended, in seconds: long enough for a developer machine that wakes up to find it.
pub const SWEEP_AFTER: u64 = 600;

/// How long a cluster stays that was found without an entry, in seconds: longer than any command needs to leave.
pub const KEEP_CLUSTER: u64 = 30;

/// How long a change takes to reach an Envoy that watches files, generously.
pub const USUAL_ENVOY: Duration = Duration::from_millis(200);

/// A directory that an operator prepared with `injector --envoy DIR install`.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    workload: Workload,
}

impl Dir {
    /// Reads what an operator prepared.
    pub fn open(path: &Path) -> Result<Self, EnvoyDirError> {
        let path = std::path::absolute(path).map_err(|error| EnvoyDirError::Io {
            path: path.to_owned(),
            error,
        })?;
        let workload = files::read_workload(&path)?;
        Ok(Self { path, workload })
    }

    /// Prepares a directory: nothing is intercepted yet. Installing again takes the new facts and keeps the intercepts.
    pub fn install(path: &Path, workload: &Workload) -> Result<Self, EnvoyDirError> {
        let io = |error| EnvoyDirError::Io {
            path: path.to_owned(),
            error,
        };
        std::fs::create_dir_all(path).map_err(io)?;
        let path = std::path::absolute(path).map_err(io)?;
        let locked = Locked::before_installation(&path)?;
        let mut state = match locked.state() {
            Err(EnvoyDirError::NotInstalled(_)) => State {
                document: inert(&workload.limits),
                unread: Map::new(),
                version: 0,
            },
            other => other?,
        };
        state.document.limits = workload.limits.clone();
        if let Some((name, intercept)) = state
            .document
            .intercepts
            .iter()
            .find(|(_, intercept)| workload.port_number(intercept.port).is_none())
        {
            return Err(EnvoyDirError::PortInUse {
                intercept: name.clone(),
                port: intercept.port,
            });
        }
        // What clusters lead to may have changed.
        locked.write_clusters(workload, &state, |_| false)?;
        locked.write_filter(workload, &state)?;
        locked.write_workload(workload)?;
        drop(locked);
        Self::open(&path)
    }

    /// Removes what [`Dir::install`] wrote, and the directory if nothing else is in it. Refuses while an intercept's lease runs, unless `force`. `now` in seconds since the epoch.
    pub fn uninstall(&self, now: u64, force: bool) -> Result<(), EnvoyDirError> {
        let locked = Locked::new(&self.path)?;
        let document = match locked.state() {
            Ok(state) => state.document,
            Err(_) if force => inert(&self.workload.limits),
            Err(error) => return Err(error),
        };
        let live: Vec<String> = document
            .intercepts
            .into_iter()
            .filter(|(_, intercept)| intercept.expires > now)
            .map(|(name, _)| name)
            .collect();
        if !force && !live.is_empty() {
            return Err(EnvoyDirError::Live {
                workload: self.workload.name.clone(),
                intercepts: live,
            });
        }
        locked.remove_all()
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the operator said.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// All intercepts, as they are this moment.
    pub fn document(&self) -> Result<Document, EnvoyDirError> {
        Ok(files::read_state(&self.path)?.document)
    }

    /// What the filter is given, as it stands there: with what it leaves out.
    pub fn configuration(&self) -> Result<String, EnvoyDirError> {
        let (text, _) = files::read_filter(&self.path)?;
        Ok(text)
    }

    /// Adds an intercept, or replaces the one of this name, if `check` allows it for what is there. Reading, checking and writing are one: no other process writes in between.
    pub fn add<E: From<EnvoyDirError>>(
        &self,
        name: &str,
        intercept: &Intercept,
        check: impl FnOnce(&Document) -> Result<(), E>,
    ) -> Result<(), E> {
        let locked = Locked::new(&self.path)?;
        let mut state = locked.state()?;
        let workload = locked.workload()?;
        check(&state.document)?;
        if workload.port_number(intercept.port).is_none() {
            return Err(E::from(EnvoyDirError::UnknownPort {
                workload: workload.name,
                port: intercept.port,
            }));
        }
        state.unread.remove(name);
        state
            .document
            .intercepts
            .insert(name.to_owned(), intercept.clone());
        locked.write_clusters(&workload, &state, |_| false)?;
        Ok(locked.write_filter(&workload, &state)?)
    }

    /// Moves the end of a lease, in seconds since the epoch, if the entry still is that of this tunnel. Never brings back a removed entry.
    pub fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), RenewError> {
        let locked = Locked::new(&self.path)?;
        let mut state = locked.state()?;
        let intercepts = &mut state.document.intercepts;
        let entry = intercepts.get_mut(name).ok_or(RenewError::Gone)?;
        if entry.address != address {
            return Err(RenewError::Taken {
                owner: entry.owner.clone(),
            });
        }
        entry.expires = expires;
        Ok(locked.write_filter(&locked.workload()?, &state)?)
    }

    /// Removes an intercept and returns it, if it is there and, where an address is given, still is that of this tunnel. Its cluster stays until
    /// [`Dir::clear_clusters`]: Envoy answers 503 if a cluster goes while a request that was already decided is between its two attempts.
    pub fn remove(
        &self,
        name: &str,
        address: Option<&str>,
    ) -> Result<Option<Intercept>, EnvoyDirError> {
        let is_ours = |found: Option<&str>| address.is_none() || found == address;
        let mut removed = self.remove_where(
            |entry, intercept| entry == name && is_ours(Some(&intercept.address)),
            |entry, unread| entry == name && is_ours(unread["address"].as_str()),
        )?;
        Ok(removed.pop().map(|(_, intercept)| intercept))
    }

    /// Removes those of these clusters that no entry needs. Others may still be needed by requests under way.
    pub fn clear_clusters(&self, clusters: &[&str]) -> Result<(), EnvoyDirError> {
        let locked = Locked::new(&self.path)?;
        let may_go = |cluster: &str| clusters.contains(&cluster);
        locked.write_clusters(&locked.workload()?, &locked.state()?, may_go)
    }

    /// Removes all entries, whatever their leases, and returns the names.
    pub fn remove_entries(&self) -> Result<Vec<String>, EnvoyDirError> {
        let removed = self.remove_where(|_, _| true, |_, _| true)?;
        Ok(removed.into_iter().map(|(name, _)| name).collect())
    }

    /// Removes entries that were not renewed for [`SWEEP_AFTER`], and returns their names; also clusters without an entry for [`KEEP_CLUSTER`]: their command was killed while it left.
    /// `now` in seconds since the epoch.
    pub fn sweep(&self, now: u64) -> Result<Vec<String>, EnvoyDirError> {
        let is_over = |intercept: &Intercept| intercept.expires.saturating_add(SWEEP_AFTER) <= now;
        let document = self.document()?;
        let is_any_over = document.intercepts.values().any(is_over);
        let orphans = |document: &Document| {
            let clusters = files::read_clusters(&self.path);
            intercept_manifest::envoy::orphans(&self.workload, document, &clusters)
        };
        // Mostly there is nothing to do, and then no lock is taken.
        if !is_any_over && orphans(&document).is_empty() {
            return Ok(Vec::new());
        }
        let removed = self.remove_where(|_, intercept| is_over(intercept), |_, _| false)?;
        if !removed.is_empty() {
            let clusters = removed.iter().map(|(_, one)| one.cluster.as_str());
            self.clear_clusters(&clusters.collect::<Vec<_>>())?;
        }
        let locked = Locked::new(&self.path)?;
        locked.sweep_clusters(&locked.workload()?, &locked.state()?, now, KEEP_CLUSTER)?;
        Ok(removed.into_iter().map(|(name, _)| name).collect())
    }

    /// Waits until Envoy has the intercept with this address and its cluster, or until `timeout`.
    pub async fn wait_live(
        &self,
        name: &str,
        address: &str,
        cluster: &str,
        timeout: Duration,
    ) -> Live {
        let awaited = Awaited {
            name,
            address: Some(address),
            cluster: Some(cluster),
        };
        live::wait(&self.workload, awaited, timeout).await
    }

    /// Waits until Envoy no longer has an intercept of this name, or until `timeout`.
    pub async fn wait_gone(&self, name: &str, timeout: Duration) -> Live {
        let awaited = Awaited {
            name,
            address: None,
            cluster: None,
        };
        live::wait(&self.workload, awaited, timeout).await
    }

    fn remove_where(
        &self,
        mut goes: impl FnMut(&str, &Intercept) -> bool,
        unread_goes: impl Fn(&str, &Value) -> bool,
    ) -> Result<Vec<(String, Intercept)>, EnvoyDirError> {
        let locked = Locked::new(&self.path)?;
        let mut state = locked.state()?;
        let removed: Vec<_> = state
            .document
            .intercepts
            .extract_if(.., |name, intercept| goes(name, intercept))
            .collect();
        let unread = state.unread.len();
        state.unread.retain(|name, entry| !unread_goes(name, entry));
        if !removed.is_empty() || state.unread.len() < unread {
            locked.write_filter(&locked.workload()?, &state)?;
        }
        Ok(removed)
    }
}

fn inert(limits: &Limits) -> Document {
    Document {
        version: SCHEMA_VERSION,
        limits: limits.clone(),
        intercepts: Default::default(),
    }
}

#[cfg(test)]
mod tests;

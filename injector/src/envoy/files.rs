//! The files of a directory and the lock that guards them. Knows their names, not their meaning.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use intercept_core::{Document, Intercept, SCHEMA_VERSION};
use intercept_manifest::envoy::{self, CLUSTERS_FILE as CLUSTERS, FILTER_FILE as FILTER};
use intercept_manifest::facts::{WORKLOAD_VERSION, Workload};
use intercept_manifest::filter;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::EnvoyDirError;

/// What the operator said.
const WORKLOAD: &str = "workload.json";
/// Since when clusters have had no entry, by their names, in seconds since the epoch. Where it is not there, all have one.
const ORPHANS: &str = "orphans.json";
/// Nothing is in it; who writes holds it.
const LOCK: &str = ".lock";

/// What stands in [`FILTER`].
pub struct State {
    pub document: Document,
    /// The entries that cannot be read, as they stand there. The filter leaves them out; here they stay until they are repaired or removed.
    pub unread: Map<String, Value>,
    /// Each write has a higher one.
    pub version: u64,
}

impl State {
    /// The document with all of its entries.
    fn whole(&self) -> serde_json::Result<Value> {
        let mut whole = serde_json::to_value(&self.document)?;
        let entries = whole.get_mut("intercepts");
        if let Some(entries) = entries.and_then(Value::as_object_mut) {
            entries.extend(self.unread.clone());
        }
        Ok(whole)
    }
}

/// A directory that no other process and no other thread changes until this is dropped.
pub struct Locked<'d> {
    dir: &'d Path,
    _lock: File,
}

impl<'d> Locked<'d> {
    /// Waits for the lock of a directory that is installed.
    pub fn new(dir: &'d Path) -> Result<Self, EnvoyDirError> {
        // A lock in one that is not any more would be left behind.
        read_workload(dir)?;
        Self::before_installation(dir)
    }

    /// The same of any directory.
    pub fn before_installation(dir: &'d Path) -> Result<Self, EnvoyDirError> {
        let path = dir.join(LOCK);
        loop {
            let lock = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(at(&path))?;
            lock.lock().map_err(at(&path))?;
            // An uninstall may have removed the file that we waited for: then it guards nothing any more.
            if is_same(&lock, &path).map_err(at(&path))? {
                return Ok(Self { dir, _lock: lock });
            }
        }
    }

    pub fn workload(&self) -> Result<Workload, EnvoyDirError> {
        read_workload(self.dir)
    }

    pub fn state(&self) -> Result<State, EnvoyDirError> {
        read_state(self.dir)
    }

    pub fn write_workload(&self, workload: &Workload) -> Result<(), EnvoyDirError> {
        self.write(WORKLOAD, &serde_json::to_vec_pretty(workload))
    }

    pub fn write_filter(&self, workload: &Workload, state: &State) -> Result<(), EnvoyDirError> {
        let file = state
            .whole()
            .and_then(|whole| envoy::filter_file(workload, &whole, state.version + 1));
        self.write(FILTER, &file.and_then(|file| serde_json::to_vec(&file)))
    }

    /// A cluster without an entry stays unless it `may_go`, by its name: a command may be leaving, its entry gone and requests still on their way.
    pub fn write_clusters(
        &self,
        workload: &Workload,
        state: &State,
        may_go: impl Fn(&str) -> bool,
    ) -> Result<(), EnvoyDirError> {
        // It is written at other times than the filter's, too; the first time there is none.
        let before = read_clusters(self.dir);
        let version = envoy::version_in(&before).unwrap_or_default();
        let version = state.version.max(version) + 1;
        let mut file = envoy::clusters_file(workload, &state.document, version);
        envoy::keep_clusters(&mut file, &before, may_go);
        self.write(CLUSTERS, &serde_json::to_vec(&file))?;
        // One whose entry came back is none any more.
        let orphans = envoy::orphans(workload, &state.document, &file);
        let mut since = self.orphans();
        since.retain(|name, _| orphans.contains(name));
        self.write_orphans(&since)
    }

    /// Removes the clusters that were seen without an entry `after` seconds ago, and notes those that have none now.
    pub fn sweep_clusters(
        &self,
        workload: &Workload,
        state: &State,
        now: u64,
        after: u64,
    ) -> Result<(), EnvoyDirError> {
        let known = self.orphans();
        let orphans = envoy::orphans(workload, &state.document, &read_clusters(self.dir));
        let since = orphans.into_iter().map(|name| {
            let since = known.get(&name).copied().unwrap_or(now);
            (name, since)
        });
        let (over, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            since.partition(|(_, since)| since.saturating_add(after) <= now);
        self.write_orphans(&left)?;
        match over.is_empty() {
            true => Ok(()),
            false => self.write_clusters(workload, state, |name| over.contains_key(name)),
        }
    }

    fn orphans(&self) -> BTreeMap<String, u64> {
        let known = read(&self.dir.join(ORPHANS)).ok();
        let known = known.and_then(|known| serde_json::from_value(known).ok());
        known.unwrap_or_default()
    }

    fn write_orphans(&self, since: &BTreeMap<String, u64>) -> Result<(), EnvoyDirError> {
        match since.is_empty() {
            _ if *since == self.orphans() => Ok(()),
            true => self.remove(ORPHANS),
            false => self.write(ORPHANS, &serde_json::to_vec(since)),
        }
    }

    /// What makes it an installed directory goes first, the lock last.
    pub fn remove_all(&self) -> Result<(), EnvoyDirError> {
        for name in [WORKLOAD, FILTER, CLUSTERS, ORPHANS, LOCK] {
            self.remove(name)?;
        }
        // Whatever else is in it is not ours, and then it stays.
        let _ = fs::remove_dir(self.dir);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), EnvoyDirError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// A rename: Envoy and other readers see the old file or the new one, never a part.
    fn write(&self, name: &str, text: &serde_json::Result<Vec<u8>>) -> Result<(), EnvoyDirError> {
        let path = self.dir.join(name);
        let text = text.as_ref().map_err(|error| unreadable(&path, error))?;
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".new-")
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(self.dir)?;
            file.write_all(text)?;
            file.write_all(b"\n")?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(at(&path))
    }
}

/// Empty where there are none.
pub fn read_clusters(dir: &Path) -> Value {
    read(&dir.join(CLUSTERS)).unwrap_or_default()
}

pub fn read_workload(dir: &Path) -> Result<Workload, EnvoyDirError> {
    let path = dir.join(WORKLOAD);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(EnvoyDirError::NotInstalled(dir.to_owned()));
        }
        other => other.map_err(at(&path))?,
    };
    expect_version(&path, &text, u64::from(WORKLOAD_VERSION))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(&path, error))
}

pub fn read_state(dir: &Path) -> Result<State, EnvoyDirError> {
    let path = dir.join(FILTER);
    let (text, version) = read_filter(dir)?;
    expect_version(&path, text.as_bytes(), SCHEMA_VERSION)?;
    let read = serde_json::from_str(&text).map(|document| (document, Map::new()));
    // Entry by entry only where that is needed: everything is read twice then.
    let read = read.or_else(|_| {
        let mut written: Value = serde_json::from_str(&text)?;
        let unread = take_unread(&mut written);
        Ok((serde_json::from_value(written)?, unread))
    });
    let (document, unread) = read.map_err(|error: serde_json::Error| unreadable(&path, error))?;
    Ok(State {
        document,
        unread,
        version,
    })
}

/// The filter's document as it stands there, and the version of the file.
pub fn read_filter(dir: &Path) -> Result<(String, u64), EnvoyDirError> {
    let path = dir.join(FILTER);
    let file = match read(&path) {
        Err(EnvoyDirError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
            return Err(EnvoyDirError::NotInstalled(dir.to_owned()));
        }
        other => other?,
    };
    let text = envoy::filter_in(&file)
        .and_then(filter::document_text)
        .ok_or_else(|| unreadable(&path, "expected the filter's configuration"))?;
    let version = envoy::version_in(&file).unwrap_or_default();
    Ok((text.to_owned(), version))
}

/// Each entry by itself, as the filter reads them.
fn take_unread(document: &mut Value) -> Map<String, Value> {
    let mut unread = Map::new();
    let entries = document.get_mut("intercepts");
    if let Some(entries) = entries.and_then(Value::as_object_mut) {
        entries.retain(|name, entry| {
            let is_read = Intercept::deserialize(&*entry).is_ok();
            if !is_read {
                unread.insert(name.clone(), entry.take());
            }
            is_read
        });
    }
    unread
}

fn read(path: &Path) -> Result<Value, EnvoyDirError> {
    let text = fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(path, error))
}

/// A newer version is named before its unknown fields are.
fn expect_version(path: &Path, text: &[u8], expected: u64) -> Result<(), EnvoyDirError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    match serde_json::from_slice(text).map_err(|error| unreadable(path, error))? {
        Versioned { version } if version == expected => Ok(()),
        Versioned { version } => Err(unreadable(
            path,
            format!("version: expected {expected}, found {version}"),
        )),
    }
}

fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> EnvoyDirError + '_ {
    move |error| EnvoyDirError::Io {
        path: PathBuf::from(path),
        error,
    }
}

fn unreadable(path: &Path, reason: impl ToString) -> EnvoyDirError {
    EnvoyDirError::Unreadable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

//! Local state of intercepts that run in the background, and their logs. Knows nothing of what an intercept does.
//!
//! `${XDG_STATE_HOME:-~/.local/state}/injector/detached/` has a directory per backend (a directory, or a context and namespace), with `NAME.json` while the intercept runs
//! and `NAME.log` until the name starts again.
//!
//! The intercept's process locks its file for as long as it lives: the process id alone may belong to another process by now. Where machines (NFS passes the lock on)
//! or a container share a home, the id means another process elsewhere: it counts only on the machine that assigned it.

pub mod follow;
mod here;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use intercept_manifest::digest;

pub use here::here;

use crate::flags;

/// A log that is larger is cut: about a hundred thousand requests.
const LARGEST_LOG: u64 = 16 << 20;
/// What is left of it.
const LEFT_OF_LOG: usize = 1 << 20;

/// Between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What is written about one that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its process.
    pub pid: u32,
    /// Where this number means something, see [`here`]. What an older version wrote does not say.
    #[serde(default)]
    pub host: Option<String>,
    /// The public name of its tunnel: the entry that has it is this one's.
    pub address: String,
    /// The workload's name.
    pub workload: String,
    /// Its conditions in words.
    pub requests: String,
    /// Seconds since the epoch.
    pub created: u64,
    /// Where its log is.
    pub log: PathBuf,
}

/// Where those of one backend are remembered.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
}

/// One that is remembered. It may have ended.
#[derive(Debug)]
pub struct Detached {
    /// Its intercept's name.
    pub name: String,
    /// What is known of it.
    pub record: Record,
    file: File,
    path: PathBuf,
}

/// The files of one that is about to go into the background. Nothing of it stays unless it is kept.
#[derive(Debug)]
pub struct Prepared {
    place: Place,
    name: String,
    log: NamedTempFile,
}

/// The files of this process, which runs in the background.
#[derive(Debug)]
pub struct Kept {
    /// What the process prints from now on.
    pub log: File,
    path: PathBuf,
    inode: u64,
}

impl Place {
    /// The place of this backend. `None` where the machine offers no home for state.
    pub fn of(backend: &str) -> Option<Self> {
        Some(Self::under(&crate::state::state_home()?, backend))
    }

    fn under(state_home: &Path, backend: &str) -> Self {
        let hash = digest::fingerprint(backend);
        let readable = flags::label(backend);
        let folder = state_home.join("injector").join("detached");
        Self {
            folder: folder.join(format!("{readable}-{hash}")),
        }
    }

    /// Makes sure that the files of this name can be written, before anything else is done.
    pub fn prepare(&self, name: &str) -> io::Result<Prepared> {
        fs::create_dir_all(&self.folder)?;
        // With mode 0600. Appending: truncation (logrotate's copytruncate) leaves no hole.
        let log = tempfile::Builder::new()
            .append(true)
            .tempfile_in(&self.folder)?;
        Ok(Prepared {
            place: self.clone(),
            name: name.to_owned(),
            log,
        })
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<Detached> {
        let path = self.file(name, "json")?;
        let file = File::open(&path).ok()?;
        let record = serde_json::from_reader(&file).ok()?;
        Some(Detached {
            name: name.to_owned(),
            record,
            file,
            path,
        })
    }

    /// All that run and can be ended from here, by name.
    pub fn running(&self) -> Vec<Detached> {
        let remembered = self.names("json").into_iter();
        let remembered = remembered.filter_map(|name| self.find(&name));
        let running = remembered.filter(|found| found.is_here() && found.is_running());
        running.collect()
    }

    /// The names whose log can be read, in order.
    pub fn logs(&self) -> Vec<String> {
        self.names("log")
    }

    /// The log of this name, whether or not there is one.
    pub fn log(&self, name: &str) -> Option<PathBuf> {
        self.file(name, "log")
    }

    /// A name that is no label, which nothing here has, must not lead out of the folder.
    fn file(&self, name: &str, extension: &str) -> Option<PathBuf> {
        let is_label = !name.is_empty() && flags::label(name) == name;
        is_label.then(|| self.folder.join(format!("{name}.{extension}")))
    }

    fn names(&self, extension: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let name = name.strip_suffix(extension)?.strip_suffix('.')?;
                (flags::label(name) == name && !name.is_empty()).then(|| name.to_owned())
            })
            .collect();
        names.sort();
        names
    }
}

impl Prepared {
    /// Where the log will be.
    pub fn log_path(&self) -> PathBuf {
        self.place.folder.join(format!("{}.log", self.name))
    }

    /// Puts the files in their places, instead of those of an earlier one of this name. From here on this process counts as the one that runs.
    pub fn keep(self, record: &Record) -> io::Result<Kept> {
        let mut state = NamedTempFile::new_in(&self.place.folder)?;
        serde_json::to_writer(&mut state, record)?;
        state.flush()?;
        // Before the file can be seen: it is never there unlocked while its process lives.
        state.as_file().try_lock()?;
        let path = self.place.folder.join(format!("{}.json", self.name));
        let inode = state.as_file().metadata()?.ino();
        let log = self
            .log
            .persist(self.place.folder.join(format!("{}.log", self.name)));
        let log = log.map_err(|error| error.error)?;
        let state = state.persist(&path).map_err(|error| error.error)?;
        // Held until the process is gone, whatever it still prints: a waiting reader misses nothing.
        std::mem::forget(state);
        Ok(Kept { log, path, inode })
    }
}

impl Kept {
    /// Cuts a log that has grown large down to its newest lines.
    pub fn bound_log(&self) -> io::Result<()> {
        let length = self.log.metadata()?.len();
        if length <= LARGEST_LOG {
            return Ok(());
        }
        let mut newest = vec![0; LEFT_OF_LOG];
        let from = length.saturating_sub(LEFT_OF_LOG as u64);
        self.log.read_exact_at(&mut newest, from)?;
        let line = newest.iter().position(|byte| *byte == b'\n');
        let whole_lines = line.map_or(&[][..], |at| &newest[at + 1..]);
        self.log.set_len(0)?;
        (&self.log).write_all(whole_lines)
    }

    /// It ends in good order: only its log stays. What a later one of this name wrote is not touched.
    pub fn forget(&self) {
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Detached {
    /// Is its process one that has this number here?
    pub fn is_here(&self) -> bool {
        self.record.host.is_some() && self.record.host == here()
    }

    /// Does its process live? Also that of another machine that shares this home.
    pub fn is_running(&self) -> bool {
        match self.file.try_lock_shared() {
            Ok(()) => {
                let _ = self.file.unlock();
                false
            }
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => false,
        }
    }

    /// Asks its process to undo everything and to end, and waits for that. Did it end by this?
    pub async fn end(&self, patience: Duration) -> bool {
        if !self.terminate() {
            return false;
        }
        let until = Instant::now() + patience;
        while self.is_running() {
            if Instant::now() > until {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Takes away what one left behind that was killed. Its log stays.
    pub fn forget(&self) {
        let here = |file: io::Result<fs::Metadata>| file.ok().map(|found| found.ino());
        if !self.is_running() && here(fs::metadata(&self.path)) == here(self.file.metadata()) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The handle is taken before the lock is looked at: with the lock held, the handle is its holder's and not that of a later process with the same number.
    #[cfg(target_os = "linux")]
    fn terminate(&self) -> bool {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        let Some(pid) = self.pid() else {
            return false;
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        self.is_running() && pidfd_send_signal(process, Signal::TERM).is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn terminate(&self) -> bool {
        let Some(pid) = self.pid() else {
            return false;
        };
        self.is_running() && rustix::process::kill_process(pid, Signal::TERM).is_ok()
    }

    /// `None` where the number is another process's.
    fn pid(&self) -> Option<Pid> {
        let pid = self.record.pid.try_into().ok()?;
        Pid::from_raw(pid).filter(|_| self.is_here())
    }
}

#[cfg(test)]
mod tests;

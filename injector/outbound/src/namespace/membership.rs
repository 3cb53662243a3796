//! How a process joins the namespace before it becomes a command.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, getrlimit, getuid, pidfd_open, setrlimit,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::word::WORD;

/// What a process needs to join: written as a word for its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The helper's process.
    pub helper: u32,
    /// How many files a command may open, which the engine has raised for itself. `None` is no limit.
    pub open_files: Option<u64>,
}

/// Not the word of a [`Membership`].
#[derive(Debug, thiserror::Error)]
#[error("{0}: expected PID:LIMIT")]
pub struct InvalidMembership(String);

impl fmt::Display for Membership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.open_files {
            Some(limit) => write!(formatter, "{}:{limit}", self.helper),
            None => write!(formatter, "{}:", self.helper),
        }
    }
}

impl FromStr for Membership {
    type Err = InvalidMembership;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (helper, limit) = word.split_once(':')?;
            let open_files = match limit {
                "" => None,
                limit => Some(limit.parse().ok()?),
            };
            Some(Self {
                helper: helper.parse().ok()?,
                open_files,
            })
        };
        parse().ok_or_else(|| InvalidMembership(word.to_owned()))
    }
}

impl Membership {
    /// The namespace of this label that a process of the same user keeps, for a further command with the limits of this process.
    ///
    /// Helpers are looked for among the processes: no file could be left behind by one that was killed.
    pub fn find(label: &str) -> io::Result<Option<Self>> {
        let processes = fs::read_dir("/proc")?.flatten();
        let helper = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|process| is_helper(*process, label));
        Ok(helper.map(|helper| Self {
            helper,
            open_files: getrlimit(Resource::Nofile).current,
        }))
    }

    /// Moves this process into the namespaces of the helper, with its working directory. Call it while the process has one thread, right before it executes the command.
    pub fn join(self) -> io::Result<()> {
        let directory = std::env::current_dir()?;
        let pid = i32::try_from(self.helper).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let helper = pidfd_open(pid, PidfdFlags::empty())?;
        let spaces =
            ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::MOUNT;
        move_into_thread_name_spaces(helper.as_fd(), spaces)?;
        // Joining a mount namespace moves a process to its root.
        std::env::set_current_dir(directory)?;
        let limit = getrlimit(Resource::Nofile);
        let current = self.open_files;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
        Ok(())
    }
}

/// Is it a helper of this user with this label? Its namespace may not be ready yet, or be gone a moment later; joining it fails then.
fn is_helper(process: u32, label: &str) -> bool {
    let path = format!("/proc/{process}");
    let is_own = fs::metadata(&path).is_ok_and(|dir| dir.uid() == getuid().as_raw());
    let command = fs::read(format!("{path}/cmdline")).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0).skip(1);
    is_own && words.next() == Some(WORD.as_bytes()) && words.next() == Some(label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_their_own_inverse() {
        for word in ["17:1024", "17:"] {
            assert_eq!(word.parse::<Membership>().unwrap().to_string(), word);
        }
        for word in ["", "17", ":3", "x:1", "1:x"] {
            assert!(word.parse::<Membership>().is_err(), "{word}");
        }
    }
}

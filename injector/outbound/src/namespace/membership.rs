//! How a process joins the namespace before it becomes a command.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::str::FromStr;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

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

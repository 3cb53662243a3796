//! Why a directory cannot be read or changed.

use std::path::PathBuf;

/// Why the directory cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyDirError {
    /// No `workload.json`.
    #[error("{}: no workload is installed here", .0.display())]
    NotInstalled(PathBuf),
    /// The system's word.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// Not what this program writes.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The workload has no such port.
    #[error("{workload} has no port {port}")]
    UnknownPort {
        /// The workload.
        workload: String,
        /// What was asked for.
        port: u16,
    },
    /// An intercept is on a port that the new workload does not have.
    #[error("{intercept} intercepts port {port}, which would be no longer there")]
    PortInUse {
        /// The intercept.
        intercept: String,
        /// Its port.
        port: u16,
    },
    /// Intercepts would be cut off.
    #[error("{workload} is intercepted by {}", .intercepts.join(", "))]
    Live {
        /// The workload.
        workload: String,
        /// Their names.
        intercepts: Vec<String>,
    },
}

/// Why a lease was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The entry was removed. It is not brought back.
    #[error("the intercept was removed")]
    Gone,
    /// Another tunnel has the name now.
    #[error("the intercept was taken over by {owner}")]
    Taken {
        /// Who claims it.
        owner: String,
    },
    /// The directory.
    #[error(transparent)]
    Dir(#[from] EnvoyDirError),
}

//! How a developer's program reaches the cluster: the end in the cluster that dials, the developer's end that asks it to, and the namespace in which the program runs.
//!
//! Knows nothing of intercepts, Kubernetes objects, command lines or terminals.

mod dial;
#[cfg(target_os = "linux")]
pub mod namespace;

pub use self::dial::{Destination, DialError};

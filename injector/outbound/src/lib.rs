//! How a developer's program reaches the cluster: the end in the cluster that dials, the developer's end that asks it to, and the namespace in which the program runs.
//!
//! Knows nothing of intercepts, Kubernetes objects, command lines or terminals.

mod chunk;
pub mod client;
mod config;
mod connection;
mod dial;
mod domains;
mod forward;
mod hello;
mod mark;
#[cfg(target_os = "linux")]
pub mod namespace;
mod policy;
mod proxy;
mod pump;
mod resolve;
pub mod server;
mod settings;
mod silence;
mod words;

pub use self::client::Client;
pub use self::config::ClusterConfig;
pub use self::connection::Connection;
pub use self::dial::{Destination, DialError, InvalidDestination};
pub use self::forward::Forward;
pub use self::hello::{Hello, Proof, Rejection};
pub use self::mark::Mark;
pub use self::policy::{InvalidRule, Policy, Rule};
pub use self::proxy::Proxy;
pub use self::pump::{Passed, pump};
pub use self::resolve::{ResolvConf, Resolver, SERVICE_RANGE, Service};
pub use self::settings::{ABSENCE, DIAL, RECHECK, RECONNECT, Tempo, VERSION};

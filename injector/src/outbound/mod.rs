//! Connections into the cluster: who may have them, how they are reached, the ports of this machine that lead there, and the network of a command.

mod forwards;
mod gate;
mod link;
mod marks;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(not(target_os = "linux"))]
#[path = "no_namespace.rs"]
mod namespace;
mod network;
mod publish;
mod registration;
mod variables;

pub use self::forwards::Forwards;
pub use self::gate::RelayGate;
pub use self::link::{Line, Link};
pub use self::namespace::{find, join, run_helper};
pub use self::network::{CommandNetwork, Network, label};
pub use self::publish::Publish;
pub use self::registration::Registration;

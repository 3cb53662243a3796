//! Connections into the cluster: who may have them, how they are reached, and the ports of this machine that lead there.

mod forwards;
mod gate;
mod link;
mod registration;

pub use self::forwards::Forwards;
pub use self::gate::RelayGate;
pub use self::link::{Line, Link};
pub use self::registration::Registration;

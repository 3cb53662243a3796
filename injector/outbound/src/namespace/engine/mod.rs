//! The part of the namespace that runs in the developer's own process: it accepts what the namespace's rules capture, dials, and moves the bytes.

mod capture;
mod connector;
mod copy;
mod datagram;
mod helper_process;
mod inside;
mod listeners;
mod local_server;
mod pending;
mod published;
mod publisher;
mod splice;
mod start;
mod syn;
mod transfer;

pub use self::inside::Inside;
pub use self::local_server::LocalServer;
pub use self::publisher::Publish;
pub use self::start::{Namespace, Options, probe};
pub use self::transfer::copy_both;

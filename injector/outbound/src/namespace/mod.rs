//! The network namespace in which a developer's program runs, on Linux: no root, any binary, the kernel's own TCP.
//!
//! ```text
//! program ── SYN ──▶ nftables: queue ──▶ engine: dial ──▶ cluster (Dialer) or the host's network
//!    ▲                                     │ outcome
//!    └── accepted, reset, unreachable ◀────┘ verdict
//! ```
//!
//! Three processes: the *engine* is tasks in the developer's own process and stays in the host's namespaces. The *helper* makes the namespace and its sockets, hands them
//! to the engine, and is asked for more. The *program* joins the helper's namespaces right before it is executed. Knows nothing of intercepts or command lines.

mod address;
mod cluster;
mod control;
mod dialer;
mod dns;
mod engine;
mod error;
mod event;
pub mod helper;
mod hold;
mod learned;
mod links;
mod membership;
mod netlink;
mod queue;
mod rules;
mod verdict;
mod word;

pub use self::cluster::{ClusterDialer, MarkedConnection};
pub use self::dialer::Dialer;
pub use self::engine::{Inside, LocalServer, Namespace, Options, Publish, copy_both, probe};
pub use self::error::{SetupError, Step};
pub use self::event::Event;
pub use self::hold::Hold;
pub use self::membership::{InvalidMembership, Membership};
pub use crate::domains::Domains;

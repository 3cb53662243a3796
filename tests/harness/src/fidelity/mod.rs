//! Sends a case unmatched and matched through the same Envoy, and compares byte for byte.
//!
//! Owns clients and origins that write and record raw bytes, because an HTTP library would repair what these tests look for. Tests state which differences are acceptable.
//!
//! ```text
//! client ─┬─► port without an intercept ─────────────────────► origin (direct)
//!         └─► port with one ─► relay ─► tunnel ─► developer ─► origin (developer)
//!                           └─ fallback ─────────────────────► origin (fallback)
//! ```

pub mod answers;
pub mod bytes;
mod case;
mod client;
mod compare;
pub mod frames;
mod message;
mod origin;
pub mod requests;
mod stage;
mod wire;

pub use case::{Case, Downstream, Kind, Part, Sent, Step};
pub use compare::{Deviation, Side, What, compare};
pub use message::{End, Fields, Message, Version};
pub use origin::{Received, Role};
pub use stage::{Outcome, Pair, Stage};

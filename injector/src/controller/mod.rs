//! From Intercepts to the mesh: decides which Intercepts of a workload are accepted, writes them into its WasmPlugin and their clusters into EnvoyFilters, and reports on each.
//!
//! `decision` and what it uses are pure: facts and a time in, objects and statuses out. Knows neither clap nor a terminal.

mod admit;
mod decision;
mod lease;
mod model;
mod render;
mod status;

pub use decision::{Memory, Snapshot, decide};
pub use model::{Key, Plan};

#[cfg(test)]
mod tests;

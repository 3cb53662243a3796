//! From Intercepts to the mesh: decides which Intercepts of a workload are accepted, writes them into its WasmPlugin and their clusters into EnvoyFilters, and reports on each.
//!
//! `decision` and what it uses are pure: facts and a time in, objects and statuses out. `watched` keeps a copy of what the API server has, `run` writes, `probe` asks the proxies. Knows neither clap nor a terminal.

mod admit;
mod decision;
mod lease;
mod model;
mod probe;
mod render;
mod run;
mod status;
mod watched;

pub use decision::{Memory, Snapshot, decide};
pub use model::{Key, Plan};
pub use run::run;

#[cfg(test)]
mod tests;

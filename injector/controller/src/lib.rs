//! The controller: accepts Intercepts, writes them into the mesh, and reports on each.
//!
//! An accepted Intercept becomes an entry in its workload's WasmPlugin, and an upstream cluster in an EnvoyFilter. `decision` and the modules below it are pure: state and time in,
//! objects and statuses out. `watched` caches the API server's objects, `run` writes, `probe` queries the proxies. Knows neither clap nor a terminal.

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

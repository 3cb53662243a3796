//! Intercepts and their controller: roles, policies and schema as the API server enforces them, and what the controller makes of it. The proxies are played by this process.

mod attacks;
mod clock;
pub mod control;
mod deaf;
mod proxies;
mod reconcile;
mod schema;

pub use control::{intercept, with};
pub use proxies::Proxies;

//! What a mesh is given: Kubernetes objects for the cluster part, for a prepared workload and for one intercept. A pure rendering; knows no API server, no file and no clock.
//!
//! Who owns which field decides how they are applied (server-side apply): the installer everything that it writes here, the controller ([`names::CONTROLLER`])
//! the EnvoyFilters of intercepts and the text `spec.pluginConfig.intercepts`. The installer therefore never writes that text, not even an empty one.

pub mod example;
pub mod facts;
pub mod install;
pub mod intercept;
pub mod invalid;
pub mod kind;
pub mod names;
pub mod object;
pub mod ports;
pub mod preparation;
pub mod reach;
pub mod resource;
pub mod workload;

mod commented;
mod gate;

pub use facts::{Mesh, Module, Plugin, Port, ServicePort, Workload};
pub use intercept::intercept_objects;
pub use invalid::InvalidFacts;
pub use kind::Kind;
pub use names::INSTALLER;
pub use object::Object;
pub use workload::workload_objects;

#[cfg(test)]
mod tests;

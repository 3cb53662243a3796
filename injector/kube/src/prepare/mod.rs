//! What has to be found out before a workload can be prepared: objects of the cluster in, facts for the rendering out. Pure; the caller brings the objects.

mod facts;
mod labels;
mod ports;
mod protocol;
mod sidecar;
mod unpreparable;

pub use facts::{Around, Facts, facts};
pub use labels::contains;
pub use protocol::{Spoken, spoken};
pub use sidecar::resource as sidecar_resource;
pub use unpreparable::Unpreparable;

#[cfg(test)]
mod tests;

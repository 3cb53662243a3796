//! What Envoy is given: a pure rendering of facts and intercepts into Envoy's configuration. Knows no file, no socket and no clock.

pub mod circuit;
pub mod cluster;
pub mod digest;
pub mod envoy;
#[cfg(test)]
mod extensions;
pub mod facts;
pub mod filter;
pub mod gate;
pub mod istio;
pub mod printable;
pub mod yaml;

//! A Kubernetes cluster as injector sees it: its API server ([`Cluster`]), the workload that a target means, and what pods and their sidecars say. Knows neither the command
//! line nor a terminal: errors say what is wrong, and the command adds what to do about it.

pub mod client;
pub mod intercepts;
pub mod live;
pub mod lookup;
pub mod pods;
pub mod prepare;
mod refusals;
pub mod rights;
pub mod sidecar;

pub use client::{Apply, Cluster, ClusterError, Kind, KubeFlags, access, guarded, kind};

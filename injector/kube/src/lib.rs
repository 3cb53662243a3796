//! A Kubernetes cluster as injector sees it: its API server ([`Cluster`]), the workload that a target means, and what pods and their sidecars say. Knows neither the command
//! line nor a terminal: errors say what is wrong, and the command adds what to do about it.

pub mod client;
pub mod envoy_admin;
pub mod intercepts;
pub mod pods;
pub mod prepare;
pub mod propagation;
pub mod resolve;
pub mod rights;
mod xds_rejections;

pub use client::{Apply, Cluster, ClusterError, Kind, KubeFlags, access, guarded, kind};

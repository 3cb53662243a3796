//! What an operator does to a cluster: install, prepare workloads, take both away. Reads and writes by way of `cluster`; what the objects look like is `intercept-manifest`'s business,
//! what stands in them `prepare`'s.

pub mod apply;
pub mod current_install;
pub mod intercepts;
pub mod module;
pub mod old;
pub mod outbound;
pub mod plan;
pub mod relays;
pub mod remove;
pub mod rollout;
pub mod runtime;
pub mod upgrade;
pub mod workloads;

/// The label by which everything of ours is found again, as in kubectl's `--selector`.
pub const OURS: &str = "app.kubernetes.io/managed-by=injector,app.kubernetes.io/part-of=injector";

//! Why a target is not one workload.

use std::collections::BTreeSet;

/// Why a target is not one workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A kind that cannot be intercepted.
    #[error("TARGET {target}: expected a name, or svc/, deploy/, sts/ or ds/ before it")]
    Prefix {
        /// As it was written.
        target: String,
        /// What stands behind the slash.
        name: String,
    },
    /// A Service whose pods belong to no workload.
    #[error(
        "svc/{service}: no Deployment, StatefulSet or DaemonSet of {namespace} has pods that it selects"
    )]
    LeadsNowhere {
        /// The Service.
        service: String,
        /// Its namespace.
        namespace: String,
    },
    /// More than one workload.
    #[error("{target}: several workloads are meant by it: {}", .workloads.join(", "))]
    Ambiguous {
        /// As it was written.
        target: String,
        /// Each as it can be named.
        workloads: Vec<String>,
    },
    /// No Service and no workload.
    #[error("{target}: no such service or workload in the namespace {namespace}, {}", there(.known))]
    NotFound {
        /// As it was written.
        target: String,
        /// Where it was looked for.
        namespace: String,
        /// The Services and workloads of the namespace.
        known: BTreeSet<String>,
    },
}

fn there(known: &BTreeSet<String>) -> String {
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    match names.len() {
        0 => "there is none".to_owned(),
        1..=12 => format!("there is {}", names.join(", ")),
        many => format!("there are {many} others"),
    }
}

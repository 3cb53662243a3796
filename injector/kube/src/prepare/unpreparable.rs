//! Why a workload cannot be prepared.

/// Why a workload cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpreparable {
    /// It stands in the node's network: no sidecar sees its requests.
    #[error(
        "{0}: its pods use the node's network (hostNetwork), where no sidecar sees their requests"
    )]
    HostNetwork(String),
    /// It selects its pods by more than labels, which a sidecar's configuration cannot.
    #[error("{0}: it selects its pods by matchExpressions, expected matchLabels alone")]
    Expressions(String),
    /// Its pods have no sidecar.
    #[error("{workload}: {without} of its {pods} pods have no sidecar")]
    NoSidecar {
        /// Which workload.
        workload: String,
        /// How many pods have none.
        without: usize,
        /// How many pods there are.
        pods: usize,
    },
    /// Its next pods will have no sidecar.
    #[error("{0}: it has no pods, and the mesh would inject no sidecar into them")]
    NotInjected(String),
    /// A port that was asked for is not there.
    #[error("{workload}: no Service leads to a port `{wanted}`, there {}", there(.known))]
    NoSuchPort {
        /// Which workload.
        workload: String,
        /// The port that was asked for.
        wanted: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A port that was asked for cannot be intercepted.
    #[error("{workload}: {reason}")]
    Port {
        /// Which workload.
        workload: String,
        /// Which port and why.
        reason: String,
    },
    /// No port is left.
    #[error("{workload}: no port that can be intercepted{}", because(.reasons))]
    NoPorts {
        /// Which workload.
        workload: String,
        /// Why the ports that there are cannot be.
        reasons: Vec<String>,
    },
    /// What the API server gave is not what Kubernetes says it is.
    #[error("{workload}: {reason}")]
    Unreadable {
        /// Which workload.
        workload: String,
        /// Where and what.
        reason: String,
    },
}

fn there(known: &[String]) -> String {
    match known {
        [] => "are none at all".to_owned(),
        known => format!("are {}", known.join(", ")),
    }
}

fn because(reasons: &[String]) -> String {
    match reasons {
        [] => ": no Service leads to it".to_owned(),
        reasons => format!(": {}", reasons.join("; ")),
    }
}

//! Whether Envoy has taken a change, asked of its admin interface.

use std::time::Duration;

use crate::manifest::facts::Workload;

/// What is known about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Envoy has it.
    Verified,
    /// It is written; whether Envoy has it is not known.
    NotVerified {
        /// The reason, to be shown.
        why: String,
    },
}

/// Waits until Envoy has the intercept with this address (`None`: until it has none of this name).
pub async fn wait(
    workload: &Workload,
    _name: &str,
    _address: Option<&str>,
    _timeout: Duration,
) -> Live {
    match workload.admin {
        None => Live::NotVerified {
            why: "Envoy's admin address is not known here".to_owned(),
        },
        Some(admin) => Live::NotVerified {
            why: format!("{admin}: not asked"),
        },
    }
}

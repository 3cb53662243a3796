//! What could keep an intercept from working, looked at one by one. The checks are pure: objects in, findings out; `seen` brings the objects.

mod installation;
pub mod rights;
mod seen;
mod surroundings;
mod workload;

use serde::Serialize;

use crate::cluster::{Cluster, ClusterError};
use crate::hint::Result;
use crate::operator::installed;

pub use seen::Target;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Good,
    /// It may be a reason, or may not be.
    Perhaps,
    /// The caller may not look.
    Unknown,
    /// An intercept cannot work so.
    Bad,
}

impl Outcome {
    /// One character for people.
    pub fn sign(self) -> char {
        match self {
            Self::Good => '✓',
            Self::Perhaps => '!',
            Self::Unknown => '?',
            Self::Bad => '✗',
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// How it came out.
    pub outcome: Outcome,
    /// What was looked at, and what was found.
    pub found: String,
    /// What to do about it, with a command to run; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    fn good(found: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Good,
            found: found.into(),
            hint: None,
        }
    }

    fn bad(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Bad,
            found: found.into(),
            hint: Some(hint.into()),
        }
    }

    fn perhaps(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Perhaps,
            ..Self::bad(found, hint)
        }
    }

    /// A question that the API server did not answer. Not to be allowed to look is no fault.
    fn unanswered(what: &str, error: &ClusterError) -> Self {
        if error.is_forbidden() {
            return Self {
                outcome: Outcome::Unknown,
                ..Self::good(format!("{what}: you may not look"))
            };
        }
        Self::bad(format!("{what}: {error}"), error.hint())
    }
}

/// Everything that can be looked at; without a target, the cluster part alone.
pub async fn examine(
    cluster: &Cluster,
    relay_namespace: &str,
    target: Option<&str>,
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    match cluster.whoami().await {
        Ok(user) => checks.push(Check::good(format!(
            "{}: you are {}",
            cluster.server(),
            user.name
        ))),
        // Without an API server there is nothing else to look at.
        Err(error) => {
            checks.push(Check::unanswered("API server", &error));
            return Ok(checks);
        }
    }
    let installation = seen::Installation::read(cluster, relay_namespace).await;
    checks.extend(installation::checks(&installation, relay_namespace));
    if let Some(target) = target {
        match Target::read(cluster, target).await {
            Ok(target) => {
                checks.extend(workload::checks(&target));
                let root = installed::root_namespace(cluster, None).await?;
                let around = seen::Surroundings::read(cluster, &root, relay_namespace).await;
                checks.extend(surroundings::checks(&around, &target, relay_namespace));
            }
            Err(failure) => checks.push(Check::bad(failure.error(), failure.hint())),
        }
    }
    checks.extend(rights::checks(cluster, relay_namespace, target.is_some()).await);
    Ok(checks)
}

#[cfg(test)]
mod tests;

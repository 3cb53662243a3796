//! What could keep an intercept from working, looked at one by one. The checks are pure: objects in, findings out; `seen` and `proxies` bring what they look at.

mod admission;
mod clock;
mod installation;
mod leftovers;
mod policies;
mod proxies;
mod proxy;
mod relays;
pub mod rights;
mod seen;
mod surroundings;
mod workload;

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError};
use crate::operator::{self, installed};

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
    /// Which check it is: the same word in every version, for scripts. One check may have several findings.
    pub id: Cow<'static, str>,
    /// How it came out.
    pub outcome: Outcome,
    /// What was looked at, and what was found.
    pub found: String,
    /// What to do about it, with a command to run; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    fn good(id: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            outcome: Outcome::Good,
            found: found.into(),
            hint: None,
        }
    }

    fn bad(
        id: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Bad,
            hint: Some(hint.into()),
            ..Self::good(id, found)
        }
    }

    fn perhaps(
        id: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Perhaps,
            ..Self::bad(id, found, hint)
        }
    }

    /// Nobody could look.
    fn unknown(id: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..Self::good(id, found)
        }
    }

    /// A question that the API server did not answer. Not to be allowed to look is no fault.
    fn unanswered(id: impl Into<Cow<'static, str>>, what: &str, error: &ClusterError) -> Self {
        match error.is_forbidden() {
            true => Self::unknown(id, format!("{what}: not verified, you may not look")),
            false => Self::bad(id, format!("{what}: {error}"), error.hint()),
        }
    }
}

/// Everything that can be looked at; without a target, the cluster part and what is left over in the namespace.
pub async fn examine(cluster: &Cluster, relay_namespace: &str, target: Option<&str>) -> Vec<Check> {
    let mut checks = Vec::new();
    match cluster.whoami().await {
        Ok(user) => checks.push(Check::good(
            "api-server",
            format!("{}: you are {}", cluster.server(), user.name),
        )),
        // Without an API server there is nothing else to look at.
        Err(error) => {
            checks.push(Check::unanswered("api-server", "API server", &error));
            return checks;
        }
    }
    let now = cluster.server_time().await;
    checks.push(clock::check(&now));
    let installation = seen::Installation::read(cluster, relay_namespace).await;
    checks.extend(installation::checks(&installation, relay_namespace));
    let replicas = installation.replicas();
    let pods = operator::relays::pods(cluster, relay_namespace, replicas).await;
    checks.extend(relays::check(&pods, relay_namespace));
    checks.push(admission::clock(&installation, &now, relay_namespace));
    let target = match target {
        Some(target) => Some(Target::read(cluster, relay_namespace, target).await),
        None => None,
    };
    match &target {
        Some(Ok(target)) => checks.extend(of_target(cluster, target, &installation, &pods).await),
        Some(Err(failure)) => checks.push(Check::bad("target", failure.error(), failure.hint())),
        None => {}
    }
    let namespace = seen::Intercepts::read(cluster).await;
    checks.extend(leftovers::checks(&namespace, now.ok()));
    if let Some(target) = &target {
        let plugin = target.as_ref().ok().map(Target::plugin_name);
        checks.extend(rights::of_intercept(cluster, plugin.as_deref(), relay_namespace).await);
    }
    checks.extend(rights::of_tunnels(cluster, (relay_namespace, replicas)).await);
    checks
}

async fn of_target(
    cluster: &Cluster,
    target: &Target,
    installation: &seen::Installation,
    relay_pods: &seen::Answer<Vec<Value>>,
) -> Vec<Check> {
    let relay_namespace = &target.relay_namespace;
    let mut checks = workload::checks(target);
    let revision = installation.revision();
    let mesh = match installed::mesh_config(cluster, revision.as_deref()).await {
        Ok(mesh) => mesh,
        Err(failure) => {
            checks.push(Check::unknown("mesh-config", failure.error()));
            Value::Null
        }
    };
    let root = installed::root_of(&mesh);
    let around = seen::Surroundings::read(cluster, &root, relay_namespace).await;
    checks.extend(surroundings::checks(&around, target, relay_namespace));
    checks.push(surroundings::export(
        installation,
        &mesh,
        target,
        relay_namespace,
    ));
    let relay = installation.relay.as_ref().ok().and_then(Option::as_ref);
    let relays = policies::of_relays(relay, relay_pods);
    checks.extend(policies::checks(&around, target, &relays));
    checks.push(installation::digest(cluster, relay_namespace, target).await);
    checks.extend(proxies::examine(cluster, target).await);
    checks
}

#[cfg(test)]
mod tests;

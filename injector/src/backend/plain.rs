//! A plain Envoy's directory as a backend. Its one workload is in `target`.

mod dir;
mod error;
mod target;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use intercept_manifest::cluster::TAKEN;
use intercept_tunnel::presence::{self, HANDOVER, Presence, Traffic};
use intercept_tunnel::relay_end::RelayEnd;
use tokio::time::sleep;

pub use self::dir::now;
use self::dir::{clear, outbound, relay, remove};
use self::target::PlainTarget;
use crate::args::envoy_flag;
use crate::envoy::{Dir, USUAL_ENVOY};
use crate::error::{CliError, Result};
use crate::local_user;
use crate::model::{Backend, Found, Live, Target, settled};
use crate::shell::quote;

/// The files that a plain Envoy watches.
#[derive(Debug)]
pub struct PlainEnvoy(pub Dir);

#[async_trait(?Send)]
impl Backend for PlainEnvoy {
    fn everywhere(&mut self) -> Result<()> {
        Err(CliError::usage(
            "-A: a plain Envoy has no namespaces",
            "leave it out; for a cluster: unset INJECTOR_ENVOY",
        ))
    }

    fn identity(&self) -> String {
        identity(self.0.path())
    }

    fn detached_in(&self, _namespace: Option<&str>) -> String {
        self.identity()
    }

    fn namespace_flags(&self, _namespace: &str) -> Option<String> {
        None
    }

    async fn owner(&self) -> Result<String> {
        Ok(local_user::name())
    }

    /// A directory has one workload, and TARGET must mean it.
    async fn target(&self, target: &str) -> Result<Box<dyn Target + '_>> {
        let (path, workload) = (self.0.path(), self.0.workload());
        let name = target.split_once('/').map_or(target, |(_, name)| name);
        if name == workload.name {
            return Ok(Box::new(PlainTarget(&self.0)));
        }
        Err(CliError::failed(
            format!(
                "{target}: no such service, {} has only {}",
                path.display(),
                workload.name
            ),
            format!(
                "its name is {0}, as in: injector intercept{1} {0}",
                quote(&workload.name),
                envoy_flag(path)
            ),
        ))
    }

    async fn all(&self) -> Result<Vec<Found>> {
        let document = self.0.document()?;
        let intercepts = document.intercepts.into_iter();
        let found = intercepts.map(|(name, intercept)| Found {
            limits: document.limits.clone(),
            namespace: None,
            kind: None,
            workload: self.0.workload().name.clone(),
            name,
            intercept,
            refusal: None,
            replicas: None,
        });
        Ok(found.collect())
    }

    async fn presences(&self, all: &[Found]) -> Vec<Presence> {
        let addresses = all.iter().map(|found| found.intercept.address.as_str());
        presence::ask_all(&relay(&self.0), &addresses.collect::<Vec<_>>()).await
    }

    async fn ways_in(&self) -> Result<(RelayEnd, RelayEnd)> {
        Ok((relay(&self.0), outbound(&self.0)?))
    }

    async fn remove(&self, found: &Found) -> Result<bool> {
        let removed = remove(&self.0, &found.name, &found.intercept.address)?;
        Ok(removed.is_some())
    }

    async fn wait_gone(&self, found: &Found, timeout: Duration) -> Live {
        settled(self.0.wait_gone(&found.name, timeout).await, USUAL_ENVOY).await
    }

    async fn clear(&self, all: &[&Found]) -> Result<()> {
        // What was decided a moment ago has reached the relay by then, or was refused by it and is answered elsewhere.
        sleep(HANDOVER.max(youth(all))).await;
        let addresses = all.iter().map(|found| found.intercept.address.as_str());
        let traffic = presence::traffic(&relay(&self.0), &addresses.collect::<Vec<_>>()).await;
        let mut outcome = Ok(());
        for (found, traffic) in all.iter().zip(traffic) {
            if !is_busy(found, traffic) {
                outcome = outcome.and(clear(&self.0, &found.intercept.cluster));
            }
        }
        outcome
    }

    fn sweep(&self) -> Result<()> {
        Ok(self.0.sweep(now()).map(drop)?)
    }

    async fn now(&self) -> Result<u64> {
        Ok(now())
    }
}

/// How long the youngest cluster has to stay yet.
fn youth(all: &[&Found]) -> Duration {
    let created = all.iter().map(|found| found.intercept.created).max();
    let age = now().saturating_sub(created.unwrap_or(0));
    // Of `created` the second is known.
    (TAKEN + Duration::from_secs(1)).saturating_sub(Duration::from_secs(age))
}

/// May a request be under way through its tunnel? Then its command lives, and clears the cluster away when that has ended.
/// Where the relay does not say, one may be while the lease runs; a cluster that stays behind so is cleared away after it.
fn is_busy(found: &Found, traffic: Traffic) -> bool {
    match traffic {
        Traffic::UnderWay => true,
        Traffic::None => false,
        Traffic::Unknown => found.intercept.expires > now(),
    }
}

/// A path that is no text is spelled out: two of them are two.
pub fn identity(dir: &Path) -> String {
    match dir.to_str() {
        Some(text) => format!("envoy:{text}"),
        None => format!("envoy:{dir:?}"),
    }
}

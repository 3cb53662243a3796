//! One workload that can be intercepted, as a session sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use intercept_core::{Document, Intercept};

use super::plain::{check_developer_port, choose_port, clear, gone, no_environment, remove};
use super::{Target, now};
use crate::developer;
use crate::environment::Environment;
use crate::envoy::{EnvoyDirError, RenewError, USUAL_ENVOY};
use crate::hint::{Failure, Result};
use crate::manifest::{self, cluster};
use crate::model::{Live, Named, NotRenewed, Placement, Plan, Replicas, Seen, TargetPort, settled};
use crate::tunnel::presence::{self, Presence};
use crate::tunnel::relay_end::RelayEnd;

impl Target<'_> {
    /// The workload's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Envoy(dir) => &dir.workload().name,
            Self::Mesh(target) => target.name(),
        }
    }

    /// Who the caller is.
    pub fn owner(&self) -> String {
        match self {
            Self::Envoy(_) => developer::name(),
            Self::Mesh(target) => target.owner().to_owned(),
        }
    }

    /// The port that `--port` means: by name or number, else the only one.
    pub fn port(&self, wanted: Option<&str>) -> Result<TargetPort> {
        match self {
            Self::Envoy(dir) => {
                let workload = dir.workload();
                let port = choose_port(dir, wanted)?;
                let by_name = || format!("http://{}:{}", workload.name, port.number);
                Ok(TargetPort {
                    number: port.number,
                    protocol: port.protocol,
                    url: port.url.clone().unwrap_or_else(by_name),
                })
            }
            Self::Mesh(target) => target.port(wanted),
        }
    }

    /// Refuses what would not work here, before anything is opened or written. `all`: everybody's requests are asked for.
    pub fn check(&self, port: u16, all: bool) -> Result<()> {
        match self {
            Self::Envoy(_) => Ok(()),
            Self::Mesh(target) => target.check(port, all),
        }
    }

    /// Refuses a port of the developer machine on which an intercepted request would come back to where it was intercepted.
    /// `service`: what was given behind the colon of `--port`.
    pub fn check_developer_port(&self, port: u16, service: Option<&str>) -> Result<()> {
        match self {
            Self::Envoy(dir) => check_developer_port(dir, port, service),
            // Its proxies and relays are on other machines.
            Self::Mesh(_) => Ok(()),
        }
    }

    /// The environment of the container that serves this port.
    pub async fn environment(&self, port: u16) -> Result<Environment> {
        match self {
            Self::Envoy(_) => Err(no_environment()),
            Self::Mesh(target) => target.environment(port).await,
        }
    }

    /// Where the tunnel of this intercept ends.
    pub async fn place(&self, name: &str, port: u16) -> Result<Placement> {
        match self {
            Self::Envoy(dir) => Ok(Placement {
                relay: RelayEnd::tcp(dir.workload().relay.control),
                cluster: cluster::intercept_name(port, name),
                identity: None,
                replica: 0,
            }),
            Self::Mesh(target) => target.place(name, port).await,
        }
    }

    /// The same besides the relays of these numbers, which are full; `None` where there is no other one.
    pub async fn place_beside(
        &self,
        name: &str,
        port: u16,
        full: &BTreeSet<u16>,
    ) -> Option<Placement> {
        match self {
            Self::Envoy(_) => None,
            Self::Mesh(target) => target.place_beside(name, port, full).await.ok(),
        }
    }

    /// Is the caller's own developer machine of this address connected?
    pub async fn presence(&self, address: &str) -> Presence {
        match self {
            Self::Envoy(dir) => {
                presence::ask(&RelayEnd::tcp(dir.workload().relay.control), address).await
            }
            Self::Mesh(target) => target.presence(address).await,
        }
    }

    /// All intercepts of the workload, as they are this moment.
    pub async fn document(&self) -> Result<Document> {
        match self {
            Self::Envoy(dir) => Ok(dir.document()?),
            Self::Mesh(target) => target.document().await,
        }
    }

    /// What the filter is given, as it stands there: with what it leaves out.
    pub async fn configuration(&self) -> Result<Vec<u8>> {
        match self {
            Self::Envoy(dir) => Ok(dir.configuration()?.into_bytes()),
            Self::Mesh(target) => target.configuration().await,
        }
    }

    /// What an intercept of this name that lives has to know.
    pub async fn look(&self, name: &str) -> Result<Seen> {
        let dir = match self {
            Self::Envoy(dir) => dir,
            Self::Mesh(target) => return target.look(name).await,
        };
        let now = now();
        match dir.document() {
            Ok(mut document) => Ok(Seen {
                entry: document.intercepts.remove(name),
                refusal: None,
                limits: Some(document.limits),
                now,
            }),
            Err(EnvoyDirError::NotInstalled(_)) => Ok(Seen {
                entry: None,
                refusal: None,
                limits: None,
                now,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// This name with what has it; where it is only the usual one and another developer has it, one that is made of it. `document`: what is there.
    pub async fn named(&self, document: &Document, name: String, is_usual: bool) -> Result<Named> {
        match self {
            Self::Envoy(_) => Ok(Named {
                holder: document.intercepts.get(&name).cloned(),
                name,
            }),
            Self::Mesh(target) => target.named(name, is_usual).await,
        }
    }

    /// The intercept of this name, as it is this moment; refused where the name cannot be used.
    pub async fn find(&self, name: &str) -> Result<Option<Intercept>> {
        match self {
            Self::Envoy(_) => Ok(self.look(name).await?.entry),
            Self::Mesh(target) => target.find(name).await,
        }
    }

    /// What would be written, to be shown: beside the entry, where that is all of a file's.
    pub async fn objects(&self, plan: &Plan, entry: &Intercept) -> Result<Vec<serde_json::Value>> {
        match self {
            Self::Envoy(dir) => {
                let workload = dir.workload();
                let port = workload.port_number(entry.port);
                let cluster = port.map(|port| manifest::envoy::cluster(workload, &plan.name, port));
                Ok(cluster.into_iter().collect())
            }
            Self::Mesh(target) => target.objects(plan, entry).await,
        }
    }

    /// Adds an intercept if `check` allows it for what is there at that moment, and nobody forbids it.
    pub async fn add(
        &self,
        plan: &Plan,
        entry: &Intercept,
        check: &(dyn Fn(&Document) -> Result<()> + Sync),
    ) -> Result<()> {
        match self {
            Self::Envoy(dir) => dir.add(&plan.name, entry, check),
            Self::Mesh(target) => target.add(plan, entry, check).await,
        }
    }

    /// Moves the end of a lease, in seconds since the epoch. In a mesh the controller has the last word on that.
    pub async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        let dir = match self {
            Self::Envoy(dir) => dir,
            Self::Mesh(target) => return target.renew(name, address).await,
        };
        dir.renew(name, address, expires)
            .map_err(|error| match error {
                RenewError::Gone => NotRenewed::Removed,
                RenewError::Taken { owner } => NotRenewed::Taken(owner),
                RenewError::Dir(EnvoyDirError::NotInstalled(_)) => NotRenewed::Removed,
                RenewError::Dir(error) => NotRenewed::Failed(error.to_string()),
            })
    }

    /// An intercept of this name lost its workload's preparation.
    pub fn gone(&self, name: &str) -> Failure {
        match self {
            Self::Envoy(dir) => gone(dir, name),
            Self::Mesh(target) => target.gone(name),
        }
    }

    /// Removes the entry of an intercept if it still is that tunnel's. What is left goes after [`Target::wait_gone`], by [`Target::clear`].
    pub async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        match self {
            Self::Envoy(dir) => remove(dir, name, address),
            Self::Mesh(target) => target.remove(name, address).await,
        }
    }

    /// Removes what nobody renewed for a long time; in a mesh the controller does.
    pub fn sweep(&self) -> Result<()> {
        match self {
            Self::Envoy(dir) => Ok(dir.sweep(now()).map(drop)?),
            Self::Mesh(_) => Ok(()),
        }
    }

    /// Waits until requests are decided by the entry of this address, and its cluster is there.
    pub async fn wait_live(
        &self,
        name: &str,
        intercept: &Intercept,
        timeout: Duration,
        progress: &(dyn Fn(Replicas) + Sync),
    ) -> Result<Live> {
        let Intercept {
            address, cluster, ..
        } = intercept;
        match self {
            Self::Envoy(dir) => Ok(dir.wait_live(name, address, cluster, timeout).await),
            Self::Mesh(target) => target.wait_live(name, address, timeout, progress).await,
        }
    }

    /// Waits until requests are no longer decided by that tunnel's entry; where that cannot be seen, for as long as it usually takes.
    pub async fn wait_gone(&self, name: &str, address: &str, timeout: Duration) -> Live {
        match self {
            Self::Envoy(dir) => settled(dir.wait_gone(name, timeout).await, USUAL_ENVOY).await,
            Self::Mesh(target) => target.wait_gone(name, address, timeout).await,
        }
    }

    /// Is an intercept's cluster removed by its command? In a mesh it is the controller's business.
    pub fn has_clusters(&self) -> bool {
        matches!(self, Self::Envoy(_))
    }

    /// Clears away what is left of an intercept whose entry is gone.
    pub async fn clear(&self, plan: &Plan, address: &str) -> Result<()> {
        match self {
            Self::Envoy(dir) => clear(dir, &plan.place.cluster),
            Self::Mesh(target) => target.clear(&plan.name, address).await,
        }
    }

    /// How long an intercept that ends may wait for somebody to take its removal.
    pub fn undo_patience(&self) -> Duration {
        match self {
            Self::Envoy(_) => Duration::ZERO,
            // An API server that comes back refuses everybody for some seconds, until it has read who may do what.
            Self::Mesh(_) => Duration::from_secs(40),
        }
    }

    /// How often a session should look whether its entry is still there.
    pub fn look_every(&self) -> Duration {
        match self {
            Self::Envoy(_) => Duration::from_secs(2),
            // Each look is a request to the API server, from every developer.
            Self::Mesh(_) => Duration::from_secs(5),
        }
    }

    /// Seconds since the epoch, by the clock that leases are counted by.
    pub async fn now(&self) -> Result<u64> {
        match self {
            Self::Envoy(_) => Ok(now()),
            Self::Mesh(target) => target.now().await,
        }
    }
}

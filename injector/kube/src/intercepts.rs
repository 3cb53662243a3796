//! The conversations with the API server about Intercepts: they are created, looked at, renewed and given back here, and everything that reaches a proxy is the controller's business.

use std::time::Duration;

use intercept_manifest::istio::names::COMMAND;
use intercept_manifest::istio::resource::Intercept;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{Cluster, ClusterError, kind};

/// Between two looks at an Intercept that is about to change.
const PAUSE: Duration = Duration::from_millis(40);

/// How long the controller may take to see a renewal.
const RENEWAL: Duration = Duration::from_secs(3);

/// Why a lease could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// There is no Intercept of this name any more.
    #[error("it was removed")]
    Removed,
    /// The name belongs to another tunnel now.
    #[error("it belongs to {owner} now")]
    Taken {
        /// Who owns that one.
        owner: String,
    },
    /// The renewal is written, and the controller has not seen it.
    #[error("no controller answers")]
    NoController,
    /// The API server did not take it.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// The Intercepts of a namespace.
#[derive(Debug, Clone)]
pub struct Intercepts {
    cluster: Cluster,
    namespace: String,
}

impl Intercepts {
    /// Asks nothing yet.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
        }
    }

    /// All of them; of all namespaces without one.
    pub async fn list(
        cluster: &Cluster,
        namespace: Option<&str>,
    ) -> Result<Vec<Intercept>, ClusterError> {
        let objects = cluster.list(&kind::INTERCEPT, namespace, None).await?;
        Ok(objects.into_iter().filter_map(read).collect())
    }

    /// The one of this name.
    pub async fn get(&self, name: &str) -> Result<Option<Intercept>, ClusterError> {
        let object = self
            .cluster
            .get(&kind::INTERCEPT, Some(&self.namespace), name)
            .await?;
        Ok(object.and_then(read))
    }

    /// The one of this name, if it is this tunnel's.
    async fn of_tunnel(
        &self,
        name: &str,
        address: &str,
    ) -> Result<Option<Intercept>, ClusterError> {
        let there = self.get(name).await?;
        Ok(there.filter(|there| there.spec.tunnel.address == address))
    }

    /// A new one; none of this name must be there.
    pub async fn create(&self, intercept: &Intercept) -> Result<(), ClusterError> {
        let created = self.cluster.create(&json!(intercept), COMMAND).await;
        created.map(drop)
    }

    /// Renews the lease of this tunnel's Intercept. The controller counts it by its own clock, and must have seen it.
    pub async fn renew(&self, name: &str, address: &str) -> Result<(), RenewError> {
        let time = renew_time();
        let renewed = json!({"op": "add", "path": "/spec/renewTime", "value": time});
        match self.patch(name, address, renewed).await {
            Ok(Some(_)) => {
                let is_seen = |there: &Intercept| {
                    let status = there.status.as_ref()?;
                    (status.observed_renew_time.as_ref() == Some(&time)).then_some(())
                };
                let seen = self.until(name, address, RENEWAL, is_seen).await?;
                seen.ok_or(RenewError::NoController)
            }
            Ok(None) => Err(RenewError::Removed),
            Err(error) if error.is_conflict() => match self.get(name).await {
                Ok(None) => Err(RenewError::Removed),
                Ok(Some(there)) if there.spec.tunnel.address != address => Err(RenewError::Taken {
                    owner: there.spec.owner,
                }),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the lease of this tunnel's Intercept: the controller takes it from the proxies, then deletes it. What was there; `None`: none of this tunnel's.
    pub async fn give_back(
        &self,
        name: &str,
        address: &str,
    ) -> Result<Option<Intercept>, ClusterError> {
        let Some(there) = self.of_tunnel(name, address).await? else {
            return Ok(None);
        };
        if there.spec.renew_time.is_none() {
            return Ok(Some(there));
        }
        let ended = json!({"op": "remove", "path": "/spec/renewTime"});
        match self.patch(name, address, ended).await {
            Ok(patched) => Ok(patched.and(Some(there))),
            Err(error) if error.is_conflict() => self.of_tunnel(name, address).await,
            Err(error) => Err(error),
        }
    }

    /// Waits until this tunnel's Intercept is gone; `true`: it was seen to go. One that is not there at first may be on its way out of the proxies.
    pub async fn wait_gone(&self, name: &str, address: &str, within: Duration) -> bool {
        let mut was_there = false;
        let gone = async {
            while !matches!(self.of_tunnel(name, address).await, Ok(None)) {
                was_there = true;
                sleep(PAUSE).await;
            }
        };
        timeout(within, gone).await.is_ok() && was_there
    }

    /// Deletes this tunnel's Intercept, whatever the controller does. `false`: it is not there any more.
    pub async fn delete(&self, name: &str, address: &str) -> Result<bool, ClusterError> {
        match self.of_tunnel(name, address).await? {
            Some(there) => self.delete_this(&there).await,
            None => Ok(false),
        }
    }

    /// Deletes this object and none of the same name that was made later.
    pub async fn delete_this(&self, there: &Intercept) -> Result<bool, ClusterError> {
        let namespace = Some(self.namespace.as_str());
        let deleted = self
            .cluster
            .delete_this(&kind::INTERCEPT, namespace, there.name(), there.uid())
            .await;
        match deleted {
            Err(error) if error.is_conflict() => Ok(false),
            deleted => deleted,
        }
    }

    /// Looks at this tunnel's Intercept until `check` has an answer; `None`: it had none within the time, or the Intercept is gone.
    pub async fn until<T>(
        &self,
        name: &str,
        address: &str,
        within: Duration,
        mut check: impl FnMut(&Intercept) -> Option<T>,
    ) -> Result<Option<T>, ClusterError> {
        let until = Instant::now() + within;
        loop {
            let Some(there) = self.of_tunnel(name, address).await? else {
                return Ok(None);
            };
            if let Some(answer) = check(&there) {
                return Ok(Some(answer));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            sleep(PAUSE).await;
        }
    }

    /// All or nothing, and only of this tunnel's.
    async fn patch(
        &self,
        name: &str,
        address: &str,
        change: Value,
    ) -> Result<Option<Value>, ClusterError> {
        let is_ours = json!({"op": "test", "path": "/spec/tunnel/address", "value": address});
        let patch = json!([is_ours, change]);
        let namespace = Some(self.namespace.as_str());
        self.cluster
            .patch_json(&kind::INTERCEPT, namespace, name, &patch, COMMAND)
            .await
    }
}

/// What a lease is renewed with: only that it changes counts.
pub fn renew_time() -> String {
    Timestamp::now().to_string()
}

/// Of one that this build cannot read, nothing is known. One that is being deleted is gone: a finalizer may keep it for ever.
fn read(object: Value) -> Option<Intercept> {
    let intercept: Intercept = serde_json::from_value(object).ok()?;
    intercept
        .metadata
        .deletion_timestamp
        .is_none()
        .then_some(intercept)
}

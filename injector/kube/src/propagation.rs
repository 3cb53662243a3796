//! Whether the sidecars of a workload have taken a change: each replica's Envoy is asked, through a port-forward to its admin interface. Replicas that appear while
//! waiting are asked too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::envoy_admin::{Awaited, get, has_filter};
use super::pods;
use super::xds_rejections::{REJECTED, Refusals, envoys_words};
use crate::access::Right;
use crate::{Cluster, ClusterError, kind};

/// Between two looks at one replica. A change takes some 100 ms from the API server to Envoy.
const PAUSE: Duration = Duration::from_millis(40);

/// Between two looks at which replicas there are.
const RELIST: Duration = Duration::from_millis(700);

/// Why it is not known that all replicas have the filter.
#[derive(Debug, thiserror::Error)]
pub enum NotVerified {
    /// The caller may not ask them.
    #[error("you may not forward ports to the pods of {0}")]
    Forbidden(String),
    /// The API server does not say which replicas there are.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An Envoy refused what it was sent, and will not take it by waiting.
    #[error("{pod}: Envoy rejected the configuration ({counter}): {log}")]
    Rejected {
        /// The replica.
        pod: String,
        /// The counter that rose.
        counter: String,
        /// What Envoy's log says.
        log: String,
    },
    /// Some do not have it in time.
    #[error("{0}")]
    Late(String),
}

/// Asks until all replicas have the filter, or until `timeout`.
async fn wait(cluster: &Cluster, awaited: Awaited, timeout: Duration) -> Result<(), NotVerified> {
    let deadline = Instant::now() + timeout;
    let mut watch = Watch {
        cluster: cluster.clone(),
        awaited: Arc::new(awaited),
        asked: BTreeMap::new(),
        live: BTreeSet::new(),
        asking: JoinSet::new(),
        reasons: Arc::default(),
        is_deserted: false,
    };
    match timeout_at(deadline, watch.all_live()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(NotVerified::Late(watch.why(timeout))),
    }
}

/// Waits until all replicas there are have the filter of this WasmPlugin, whatever intercepts it has. Where there is no replica, nothing is waited for.
pub async fn wait_filter(
    cluster: &Cluster,
    plugin: &Value,
    timeout: Duration,
) -> Result<(), NotVerified> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let awaited = Awaited {
        namespace: text(&plugin["metadata"]["namespace"]),
        selector: selector_of(plugin),
        plugin: text(&plugin["metadata"]["name"]),
    };
    match can_be_waited_for(cluster, &awaited).await? {
        Some(true) => wait(cluster, awaited, timeout).await,
        Some(false) => Ok(()),
        None => Err(NotVerified::Forbidden(awaited.namespace)),
    }
}

/// The pods of a WasmPlugin, as kubectl's `--selector` has it.
pub fn selector_of(plugin: &Value) -> String {
    let labels = plugin["spec"]["selector"]["matchLabels"].clone();
    let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
    pods::selector(&labels)
}

/// Are there replicas to be asked? `None`: the caller may not ask them.
async fn can_be_waited_for(
    cluster: &Cluster,
    awaited: &Awaited,
) -> Result<Option<bool>, ClusterError> {
    let namespace = Some(awaited.namespace.as_str());
    let pods = cluster
        .list(&kind::POD, namespace, Some(&awaited.selector))
        .await?;
    if !pods.iter().any(pods::can_be_asked) {
        return Ok(Some(false));
    }
    let right = Right::new("get", &kind::POD, namespace).of("portforward");
    Ok(cluster.can(&right).await?.then_some(true))
}

/// A pod by its uid: that of a StatefulSet comes back under its old name, with another Envoy in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Replica {
    name: String,
    uid: String,
}

impl Replica {
    fn of(pod: &Value) -> Self {
        Self {
            name: pods::name_of(pod).to_owned(),
            uid: pod["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// How asking one replica ended.
enum Told {
    Live(Replica),
    /// Its Envoy refused what it was sent: the counter that rose, and what the log says.
    Rejected(Replica, String, String),
}

struct Watch {
    cluster: Cluster,
    awaited: Arc<Awaited>,
    /// The replicas that are there, each with the task that asks it.
    asked: BTreeMap<Replica, AbortHandle>,
    live: BTreeSet<Replica>,
    asking: JoinSet<Told>,
    /// What each replica lacks.
    reasons: Arc<Mutex<BTreeMap<Replica, String>>>,
    /// Is there no pod that runs, not even one that is going?
    is_deserted: bool,
}

impl Watch {
    async fn all_live(&mut self) -> Result<(), NotVerified> {
        loop {
            self.look_for_replicas().await?;
            let relist = Instant::now() + RELIST;
            loop {
                // Without pods there is nothing to wait for.
                if self.is_deserted
                    || (!self.asked.is_empty() && self.live.len() == self.asked.len())
                {
                    return Ok(());
                }
                match timeout_at(relist, self.asking.join_next()).await {
                    Ok(Some(Ok(Told::Live(pod)))) if self.asked.contains_key(&pod) => {
                        self.live.insert(pod);
                    }
                    Ok(Some(Ok(Told::Rejected(replica, counter, log))))
                        if self.asked.contains_key(&replica) =>
                    {
                        let pod = replica.name;
                        return Err(NotVerified::Rejected { pod, counter, log });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        tokio::time::sleep_until(relist).await;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    async fn look_for_replicas(&mut self) -> Result<(), ClusterError> {
        let Awaited {
            namespace,
            selector,
            ..
        } = &*self.awaited;
        let pods = self
            .cluster
            .list(&kind::POD, Some(namespace), Some(selector))
            .await?;
        self.is_deserted = pods.iter().all(pods::has_ended);
        let there = pods.iter().filter(|pod| pods::can_be_asked(pod));
        let there: BTreeSet<Replica> = there.map(Replica::of).collect();
        self.asked.retain(|pod, task| {
            let stays = there.contains(pod);
            if !stays {
                task.abort();
            }
            stays
        });
        self.live.retain(|pod| there.contains(pod));
        for pod in there {
            if !self.asked.contains_key(&pod) {
                let asking = ask(
                    self.cluster.clone(),
                    Arc::clone(&self.awaited),
                    pod.clone(),
                    Arc::clone(&self.reasons),
                );
                let task = self.asking.spawn(asking);
                self.asked.insert(pod, task);
            }
        }
        Ok(())
    }

    fn why(&self, timeout: Duration) -> String {
        let (live, all) = (self.live.len(), self.asked.len());
        if all == 0 {
            return "no replica with a running sidecar is there".to_owned();
        }
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = self.asked.keys().find(|pod| !self.live.contains(pod));
        let reason = missing.map(|pod| {
            let reason = reasons.get(pod).map_or("no answer", String::as_str);
            format!("; {}: {reason}", pod.name)
        });
        format!(
            "{live}/{all} replicas after {} s{}",
            timeout.as_secs(),
            reason.unwrap_or_default()
        )
    }
}

/// Ends when this replica has what is awaited, or has refused it.
async fn ask(
    cluster: Cluster,
    awaited: Arc<Awaited>,
    pod: Replica,
    reasons: Arc<Mutex<BTreeMap<Replica, String>>>,
) -> Told {
    let mut refusals = Refusals::default();
    loop {
        let has_filter = has_filter(&cluster, &awaited, &pod.name).await;
        if let Ok(true) = has_filter {
            return Told::Live(pod);
        }
        let stats = get(&cluster, &awaited.namespace, &pod.name, REJECTED).await;
        if let (Ok(_), Ok(stats)) = (&has_filter, &stats)
            && let Some(what) = refusals.look(stats, &awaited)
        {
            let log = envoys_words(&cluster, &awaited.namespace, &pod.name).await;
            return Told::Rejected(pod, what, log);
        }
        let reason = match has_filter {
            Ok(_) => "Envoy has not taken the filter's configuration".to_owned(),
            Err(error) => error.to_string(),
        };
        reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.clone(), reason);
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recreated_pod_is_another_replica() {
        let pod = |uid: &str| Replica::of(&json!({"metadata": {"name": "orders-0", "uid": uid}}));
        assert_ne!(pod("a"), pod("b"));
        assert_eq!(pod("a"), pod("a"));
    }
}

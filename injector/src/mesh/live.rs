//! Whether the sidecars of a workload have taken a change: each replica's Envoy is asked, through a port-forward to its admin interface. Replicas that appear while
//! waiting are asked too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::refusals::{REJECTED, Refusals, envoys_words};
use super::{pods, store};
use crate::ask::Asked;
use crate::backend::{Live, Replicas};
use crate::cluster::{Cluster, ClusterError, Right, kind};
use crate::manifest::filter;

/// Where Envoy's admin interface is, on the pod's own loopback.
const ADMIN_PORT: u16 = 15000;

/// Between two looks at one replica. A change takes some 100 ms from the API server to Envoy.
const PAUSE: Duration = Duration::from_millis(40);

/// Between two looks at which replicas there are.
const RELIST: Duration = Duration::from_millis(700);

/// A replica that takes longer to say what it has does not say.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of Envoy's configuration that comes by extension config discovery.
pub const FILTERS: &str = "/config_dump?resource=ecds_filters";

/// What the replicas of a workload should have.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// The workload's namespace.
    pub namespace: String,
    /// Its pods, as kubectl's `--selector` has it.
    pub selector: String,
    /// The WasmPlugin.
    pub plugin: String,
    /// The intercept; empty: the filter itself, whatever intercepts it has.
    pub name: String,
    /// Its tunnel's address; `None`: there should be no intercept of this name.
    pub address: Option<String>,
    /// The cluster that must be there too.
    pub cluster: Option<String>,
}

/// Asks until all replicas have what is awaited, or until `timeout`.
pub async fn wait(
    cluster: &Cluster,
    awaited: Awaited,
    timeout: Duration,
    progress: &(dyn Fn(Replicas) + Sync),
) -> Live {
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
    match timeout_at(deadline, watch.all_live(progress)).await {
        Ok(Ok(())) => Live::Verified,
        Ok(Err(Hopeless::Unanswered(error))) => Live::NotVerified {
            why: error.to_string(),
        },
        Ok(Err(Hopeless::Rejected(why))) => Live::NotVerified { why },
        Err(_) => Live::NotVerified {
            why: watch.why(timeout),
        },
    }
}

/// Waits until all replicas there are have the filter of this WasmPlugin, whatever intercepts it has. Where there is no replica, nothing is waited for.
pub async fn wait_filter(cluster: &Cluster, plugin: &Value, timeout: Duration) -> Live {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = plugin["spec"]["selector"]["matchLabels"].clone();
    let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
    let awaited = Awaited {
        namespace: text(&plugin["metadata"]["namespace"]),
        selector: store::selector(&labels),
        plugin: text(&plugin["metadata"]["name"]),
        name: String::new(),
        address: None,
        cluster: None,
    };
    match can_be_waited_for(cluster, &awaited).await {
        Ok(Some(true)) => wait(cluster, awaited, timeout, &|_| {}).await,
        Ok(Some(false)) => Live::Verified,
        Ok(None) => Live::NotVerified {
            why: format!(
                "you may not forward ports to the pods of {}",
                awaited.namespace
            ),
        },
        Err(error) => Live::NotVerified {
            why: error.to_string(),
        },
    }
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

/// What the filter of each replica has at the moment; `Null` for one that does not say.
pub async fn documents(
    cluster: &Cluster,
    namespace: &str,
    selector: &str,
    plugin: &str,
) -> Result<Vec<Value>, ClusterError> {
    let pods = cluster
        .list(&kind::POD, Some(namespace), Some(selector))
        .await?;
    let mut asking = JoinSet::new();
    for pod in pods.iter().filter(|pod| pods::can_be_asked(pod)) {
        let (cluster, namespace) = (cluster.clone(), namespace.to_owned());
        let (plugin, pod) = (plugin.to_owned(), pods::name_of(pod).to_owned());
        asking.spawn(async move {
            let filters = get(&cluster, &namespace, &pod, FILTERS);
            let filters = tokio::time::timeout(LOOK_TIMEOUT, filters).await;
            let filters = filters.ok().and_then(Result::ok).unwrap_or_default();
            document(&filters, &namespace, &plugin).unwrap_or_default()
        });
    }
    Ok(asking.join_all().await)
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
    /// Its Envoy refused what it was sent, and will not take it by waiting.
    Rejected(Replica, String),
}

/// Why waiting ends early.
enum Hopeless {
    Unanswered(ClusterError),
    Rejected(String),
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
    async fn all_live(&mut self, progress: &(dyn Fn(Replicas) + Sync)) -> Result<(), Hopeless> {
        loop {
            self.look_for_replicas()
                .await
                .map_err(Hopeless::Unanswered)?;
            let relist = Instant::now() + RELIST;
            loop {
                progress(self.replicas());
                // What nobody should have, nobody has where there is nobody.
                let is_gone = self.is_deserted && self.awaited.address.is_none();
                if is_gone || (!self.asked.is_empty() && self.live.len() == self.asked.len()) {
                    return Ok(());
                }
                match timeout_at(relist, self.asking.join_next()).await {
                    Ok(Some(Ok(Told::Live(pod)))) if self.asked.contains_key(&pod) => {
                        self.live.insert(pod);
                    }
                    Ok(Some(Ok(Told::Rejected(pod, why)))) if self.asked.contains_key(&pod) => {
                        return Err(Hopeless::Rejected(format!("{}: {why}", pod.name)));
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

    fn replicas(&self) -> Replicas {
        Replicas {
            live: self.live.len(),
            all: self.asked.len(),
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
        let Replicas { live, all } = self.replicas();
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
        let lacks = match missing(&cluster, &awaited, &pod.name).await {
            Ok(None) => return Told::Live(pod),
            lacks => lacks.map(Option::unwrap_or_default),
        };
        let stats = get(&cluster, &awaited.namespace, &pod.name, REJECTED).await;
        if let (Ok(lacks), Ok(stats)) = (&lacks, &stats)
            && let Some(what) = refusals.look(stats, &awaited, *lacks)
        {
            let words = envoys_words(&cluster, &awaited.namespace, &pod.name).await;
            return Told::Rejected(
                pod,
                format!("Envoy rejected the configuration ({what}): {words}"),
            );
        }
        let reason = match lacks {
            Ok(lacks) => lacks.to_string(),
            Err(error) => error.to_string(),
        };
        reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.clone(), reason);
        sleep(PAUSE).await;
    }
}

/// What a replica does not have yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Missing {
    #[default]
    Entry,
    /// It has the entry.
    Cluster,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "Envoy has not taken the filter's configuration",
            Self::Cluster => "Envoy has not taken the intercept's cluster",
        })
    }
}

async fn missing(
    cluster: &Cluster,
    awaited: &Awaited,
    pod: &str,
) -> anyhow::Result<Option<Missing>> {
    let filters = get(cluster, &awaited.namespace, pod, FILTERS).await?;
    if !has_entry(&filters, awaited) {
        return Ok(Some(Missing::Entry));
    }
    let Some(name) = &awaited.cluster else {
        return Ok(None);
    };
    let path = crate::envoy::cluster_path(name);
    let clusters = get(cluster, &awaited.namespace, pod, &path).await?;
    let found = crate::envoy::names(&clusters, "/cluster/name").any(|known| known == name);
    Ok((!found).then_some(Missing::Cluster))
}

/// The answer of a sidecar's Envoy, by way of its admin interface.
pub async fn get(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    path: &str,
) -> anyhow::Result<Value> {
    let stream = cluster.connect_pod(namespace, pod, ADMIN_PORT).await?;
    Asked::over(stream).await?.get_last(path).await
}

fn has_entry(filters: &Value, awaited: &Awaited) -> bool {
    let Some(document) = document(filters, &awaited.namespace, &awaited.plugin) else {
        return false;
    };
    match awaited.name.as_str() {
        // Where the module could not be fetched, Istio puts something else in the filter's place, which has no document.
        "" => !document.is_null(),
        name => address(&document, name) == awaited.address.as_deref(),
    }
}

/// The address under which a filter has the intercept of this name.
pub fn address<'d>(document: &'d Value, name: &str) -> Option<&'d str> {
    document["intercepts"][name]["address"].as_str()
}

/// What the filter of this WasmPlugin was given.
fn document(filters: &Value, namespace: &str, plugin: &str) -> Option<Value> {
    let ours = format!("{namespace}.{plugin}");
    let configs = filters["configs"].as_array();
    let ours = configs.into_iter().flatten().find(|config| {
        let name = config["ecds_filter"]["name"].as_str();
        name.map(plugin_of) == Some(&ours)
    })?;
    let text = filter::document_text(&ours["ecds_filter"]["typed_config"]);
    Some(
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
    )
}

/// `NAMESPACE.NAME` of the WasmPlugin for which Istio made a filter. What stands before it, and after a `~`, differs between versions of Istio; neither sign can be in the two.
pub fn plugin_of(filter: &str) -> &str {
    let last = filter.rsplit('/').next().unwrap_or(filter);
    last.split('~').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn awaited(address: Option<&str>) -> Awaited {
        Awaited {
            namespace: "shop".to_owned(),
            selector: "app=orders".to_owned(),
            plugin: "injector-deployment-orders".to_owned(),
            name: "bob".to_owned(),
            address: address.map(str::to_owned),
            cluster: None,
        }
    }

    fn dump(name: &str, document: &Value) -> Value {
        let configuration = json!({"value": document.to_string()});
        json!({"configs": [
            {"ecds_filter": {"name": "other"}},
            {"version_info": "v", "ecds_filter": {"name": name, "typed_config": {"config": {"configuration": configuration}}}},
        ]})
    }

    #[test]
    fn a_replica_has_the_intercept_when_its_filter_has_the_entry_of_this_tunnel() {
        let document = json!({"version": 1, "intercepts": {"bob": {"address": "aa"}}});
        let ours = "extenstions.istio.io/wasmplugin/shop.injector-deployment-orders";
        let dumped = dump(ours, &document);
        assert!(has_entry(&dumped, &awaited(Some("aa"))));
        assert!(!has_entry(&dumped, &awaited(Some("bb"))));
        assert!(!has_entry(&dumped, &awaited(None)));
        assert!(has_entry(
            &dump(ours, &json!({"version": 1})),
            &awaited(None)
        ));
    }

    #[test]
    fn a_replica_has_the_filter_when_it_was_given_a_document_and_not_something_in_its_place() {
        let ours = "shop.injector-deployment-orders";
        let mut filter = awaited(None);
        filter.name.clear();
        assert!(has_entry(&dump(ours, &json!({"version": 1})), &filter));
        let placeholder =
            json!({"configs": [{"ecds_filter": {"name": ours, "typed_config": {"rules": {}}}}]});
        assert!(!has_entry(&placeholder, &filter));
        assert!(!has_entry(&Value::Null, &filter));
    }

    #[test]
    fn the_filter_is_known_by_the_names_that_istio_gives_and_gave_it() {
        for name in [
            "extensions.istio.io/trafficextension/shop.injector-deployment-orders~istio-translated-wasmplugin",
            "extenstions.istio.io/wasmplugin/shop.injector-deployment-orders",
            "shop.injector-deployment-orders",
        ] {
            assert_eq!(plugin_of(name), "shop.injector-deployment-orders");
        }
    }

    #[test]
    fn a_pod_that_came_back_under_its_name_is_another_replica() {
        let pod = |uid: &str| Replica::of(&json!({"metadata": {"name": "orders-0", "uid": uid}}));
        assert_ne!(pod("a"), pod("b"));
        assert_eq!(pod("a"), pod("a"));
    }

    #[test]
    fn another_workloads_filter_is_not_ours() {
        let document = json!({"version": 1, "intercepts": {"bob": {"address": "aa"}}});
        let other = dump("x/shop.injector-deployment-orders-2", &document);
        assert!(!has_entry(&other, &awaited(Some("aa"))));
        assert!(!has_entry(&Value::Null, &awaited(Some("aa"))));
    }
}

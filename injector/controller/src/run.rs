//! The loop that decides and writes.
//!
//! Every change leads to a full decision, so a missed one is picked up the next time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream;
use intercept_kube::{Apply, Cluster, ClusterError, Kind, kind};
use intercept_manifest::istio::names;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{self, EventType, Recorder, Reporter};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::decision::{Memory, Snapshot, decide};
use super::model::{Event, Key, Plan, Removal, Reports, Unwritten, Write};
use super::probe;
use super::watched::Watched;

/// Read timeout of all requests, including lists.
const READ_TIMEOUT: Duration = Duration::from_secs(25);

/// Pause between a failed write and the next decision.
const RETRY: Duration = Duration::from_secs(1);

/// Interval of clock comparisons with the API server.
const CLOCK: Duration = Duration::from_secs(20);

/// How long to collect changes before a decision.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// How long a write must be refused to count as permanent.
///
/// An API server that restarts denies all requests for some seconds.
const REFUSED: Duration = Duration::from_secs(3);

/// Pause between two attempts at a refused write.
const AGAIN: Duration = Duration::from_secs(10);

/// How long a written change may stay unseen before it is written again.
const UNSEEN: Duration = Duration::from_secs(5);

/// How many writes to run at once.
const AT_ONCE: usize = 16;

/// Runs until `stop`. `log` receives one line at a time.
pub async fn run(
    cluster: &Cluster,
    log: fn(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), ClusterError> {
    let client = cluster.watch_client(READ_TIMEOUT).await?;
    let changed = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    let watched = Watched::start(cluster, &client, &changed, log, &mut watches);
    let loops = async {
        watched.wait_ready().await;
        log("watching");
        Controller::new(cluster.clone(), client.clone(), watched, log)
            .run(&changed)
            .await;
    };
    tokio::select! {
        () = loops => {}
        () = stop => {}
    }
    Ok(())
}

struct Controller {
    cluster: Cluster,
    recorder: Recorder,
    watched: Watched,
    log: fn(&str),
    memory: Memory,
    /// Writes that the watch does not show yet.
    sent: HashMap<(&'static str, Key), (Write, Instant)>,
    /// Failed writes.
    failed: HashMap<(&'static str, Key), Failed>,
    /// Deleted objects that the watch still shows, by kind and uid.
    deleted: HashSet<(&'static str, String)>,
    probes: BTreeMap<Key, Probe>,
    reports: BTreeMap<Key, Reports>,
    reports_tx: mpsc::Sender<(Key, Reports)>,
    reports_rx: mpsc::Receiver<(Key, Reports)>,
}

/// A write that failed.
struct Failed {
    write: Write,
    error: ClusterError,
    since: Instant,
    at: Instant,
}

impl Failed {
    fn is_refused(&self) -> bool {
        self.error.is_rejection() && self.at.duration_since(self.since) >= REFUSED
    }
}

struct Probe {
    hash_tx: watch::Sender<u64>,
    _task: JoinSet<()>,
}

impl Controller {
    fn new(cluster: Cluster, client: Client, watched: Watched, log: fn(&str)) -> Self {
        let reporter = Reporter {
            controller: names::CONTROLLER.to_owned(),
            instance: std::env::var("HOSTNAME").ok(),
        };
        let (reports_tx, reports_rx) = mpsc::channel(64);
        Self {
            cluster,
            recorder: Recorder::new(client, reporter),
            watched,
            log,
            memory: Memory::default(),
            sent: HashMap::new(),
            failed: HashMap::new(),
            deleted: HashSet::new(),
            probes: BTreeMap::new(),
            reports: BTreeMap::new(),
            reports_tx,
            reports_rx,
        }
    }

    async fn run(mut self, changed: &Notify) {
        let mut skew = self.skew(0).await;
        let mut clock_at = Instant::now() + CLOCK;
        loop {
            let now = now();
            let snapshot = Snapshot {
                intercepts: self.watched.intercepts.state(),
                plugins: self.watched.plugins(),
                filters: self.watched.filters(),
                reports: self.reports.clone(),
                unwritten: self.unwritten(),
                now,
                skew,
            };
            let plan = decide(&snapshot, &mut self.memory);
            self.follow(&plan);
            let is_done = self.write(&plan).await;
            let next = plan
                .next
                .map(|next| Duration::from_secs(next.saturating_sub(now)));
            let next = if is_done { next } else { Some(RETRY) };
            let latest = if self.failed.is_empty() { CLOCK } else { AGAIN };
            let wake = Instant::now() + next.unwrap_or(latest).min(latest);
            tokio::select! {
                () = changed.notified() => sleep(DEBOUNCE).await,
                Some((key, reports)) = self.reports_rx.recv() => self.take_report(key, reports),
                () = sleep_until(wake) => {}
            }
            while let Ok((key, reports)) = self.reports_rx.try_recv() {
                self.take_report(key, reports);
            }
            if Instant::now() >= clock_at {
                skew = self.skew(skew).await;
                clock_at = Instant::now() + CLOCK;
            }
        }
    }

    /// Failed writes of the objects that proxies need.
    ///
    /// A failed status does not affect its Intercept.
    fn unwritten(&self) -> BTreeMap<Key, Unwritten> {
        let failed = self.failed.iter();
        let failed = failed.filter(|((what, _), _)| *what != kind::INTERCEPT.name);
        let unwritten = failed.map(|((_, key), failed)| {
            let unwritten = Unwritten {
                why: failed.error.to_string(),
                is_refused: failed.is_refused(),
            };
            (key.clone(), unwritten)
        });
        unwritten.collect()
    }

    fn take_report(&mut self, key: Key, reports: Reports) {
        if self.probes.contains_key(&key) {
            self.reports.insert(key, reports);
        }
    }

    /// How far the API server's clock is ahead, in seconds; `known` if it does not respond.
    async fn skew(&self, known: i64) -> i64 {
        match self.cluster.server_time().await {
            Ok(theirs) => i64::try_from(theirs).unwrap_or(0) - i64::try_from(now()).unwrap_or(0),
            Err(error) => {
                (self.log)(&format!("the API server's clock: {error}"));
                known
            }
        }
    }

    /// Probes the replicas of these workloads and of no others.
    fn follow(&mut self, plan: &Plan) {
        self.probes.retain(|key, _| plan.watched.contains_key(key));
        self.reports.retain(|key, _| plan.watched.contains_key(key));
        for (key, (workload, hash)) in &plan.watched {
            let probe = self.probes.entry(key.clone()).or_insert_with(|| {
                let (hash_tx, hash_rx) = watch::channel(*hash);
                let mut task = JoinSet::new();
                task.spawn(probe::follow(
                    self.cluster.clone(),
                    key.clone(),
                    workload.clone(),
                    hash_rx,
                    self.reports_tx.clone(),
                ));
                Probe {
                    hash_tx,
                    _task: task,
                }
            });
            probe
                .hash_tx
                .send_if_modified(|known| std::mem::replace(known, *hash) != *hash);
        }
    }

    /// Writes the whole plan; `false` if a write failed and must be retried.
    async fn write(&mut self, plan: &Plan) -> bool {
        let filters = self.apply(kind::ENVOY_FILTER.name, &plan.filters).await;
        let texts = self.apply(kind::WASM_PLUGIN.name, &plan.texts).await;
        let statuses = self.apply(kind::INTERCEPT.name, &plan.statuses).await;
        let ended = self.delete(&kind::INTERCEPT, &plan.ended).await;
        let leftovers = self.delete(&kind::ENVOY_FILTER, &plan.leftovers).await;
        filters && texts && statuses && ended && leftovers
    }

    async fn apply(&mut self, what: &'static str, writes: &[Write]) -> bool {
        let keys: HashSet<&Key> = writes.iter().map(|write| &write.key).collect();
        let is_old = |at: &Instant| at.elapsed() >= UNSEEN;
        self.sent
            .retain(|(kind, key), (_, at)| *kind != what || keys.contains(key) && !is_old(at));
        self.failed
            .retain(|(kind, key), _| *kind != what || keys.contains(key));
        let is_due = |write: &&Write| {
            let key = (what, write.key.clone());
            let is_same = |other: &Write| other.basis == write.basis && other.body == write.body;
            let is_sent = self.sent.get(&key).is_some_and(|(sent, _)| is_same(sent));
            let is_held = self.failed.get(&key).is_some_and(|failed| {
                is_same(&failed.write) && failed.is_refused() && failed.at.elapsed() < AGAIN
            });
            !is_sent && !is_held
        };
        let new: Vec<&Write> = writes.iter().filter(is_due).collect();
        let this = &*self;
        let sent =
            stream::iter(new).map(|write| async move { (write, this.send(what, write).await) });
        let sent: Vec<(&Write, Result<Value, ClusterError>)> =
            sent.buffer_unordered(AT_ONCE).collect().await;
        let mut is_done = true;
        for (write, answer) in sent {
            let key = (what, write.key.clone());
            match answer {
                Ok(_) => {
                    self.failed.remove(&key);
                    self.sent.insert(key, (write.clone(), Instant::now()));
                    for event in &write.events {
                        self.publish(event).await;
                    }
                }
                Err(error) if is_stale(&error) => {}
                Err(error) => is_done &= self.take_failure(key, write, error),
            }
        }
        is_done
    }

    /// Records a failed write, and logs it once.
    ///
    /// `true` if it is known to be refused, so that a retry can wait.
    fn take_failure(
        &mut self,
        key: (&'static str, Key),
        write: &Write,
        error: ClusterError,
    ) -> bool {
        let at = Instant::now();
        let known = self.failed.remove(&key);
        let is_known = known
            .as_ref()
            .is_some_and(|known| known.error.to_string() == error.to_string());
        if !is_known {
            (self.log)(&error.to_string());
        }
        let was_refused = known.as_ref().is_some_and(Failed::is_refused);
        let known = known.filter(|known| known.error.is_rejection() == error.is_rejection());
        let failed = Failed {
            write: write.clone(),
            error,
            since: known.map_or(at, |known| known.since),
            at,
        };
        let is_refused = failed.is_refused();
        self.failed.insert(key, failed);
        was_refused && is_refused
    }

    async fn send(&self, what: &str, write: &Write) -> Result<Value, ClusterError> {
        let Key { namespace, name } = &write.key;
        if what == kind::INTERCEPT.name {
            let patch = self.cluster.patch_status(
                &kind::INTERCEPT,
                Some(namespace),
                name,
                &write.body,
                names::CONTROLLER,
            );
            return patch.await;
        }
        let how = Apply {
            force: true,
            dry_run: false,
        };
        self.cluster
            .apply(&write.body, names::CONTROLLER, how)
            .await
    }

    async fn delete(&mut self, kind: &Kind, removals: &[Removal]) -> bool {
        let mut is_done = true;
        self.deleted
            .retain(|(of, uid)| *of != kind.name || removals.iter().any(|one| one.uid == *uid));
        for removal in removals {
            if self.deleted.contains(&(kind.name, removal.uid.clone())) {
                continue;
            }
            let Key { namespace, name } = &removal.key;
            match self
                .cluster
                .delete_this(kind, Some(namespace), name, &removal.uid)
                .await
            {
                Ok(was_there) => {
                    self.deleted.insert((kind.name, removal.uid.clone()));
                    if let Some(event) = removal.event.as_ref().filter(|_| was_there) {
                        self.publish(event).await;
                    }
                }
                Err(error) if is_stale(&error) => {}
                Err(error) => {
                    (self.log)(&error.to_string());
                    is_done = false;
                }
            }
        }
        is_done
    }

    /// Publishes an Event. An error is ignored.
    async fn publish(&self, event: &Event) {
        let reference = ObjectReference {
            api_version: Some(kind::INTERCEPT.api_version()),
            kind: Some(kind::INTERCEPT.name.to_owned()),
            namespace: Some(event.key.namespace.clone()),
            name: Some(event.key.name.clone()),
            uid: Some(event.uid.clone()),
            ..ObjectReference::default()
        };
        let published = events::Event {
            type_: if event.is_warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: event.reason.clone(),
            note: Some(event.note.clone()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&published, &reference).await {
            (self.log)(&format!("Event {}: {error}", event.reason));
        }
    }
}

/// Was the object changed or deleted in the meantime? The watch will show it.
fn is_stale(error: &ClusterError) -> bool {
    let is_gone = matches!(error, ClusterError::Refused { status, .. } if status.code == 404);
    is_gone || error.is_conflict()
}

/// Seconds since the epoch.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

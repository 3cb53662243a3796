//! A cache of all objects that a decision needs, kept up to date by watches.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use intercept_kube::{Cluster, Kind, kind};
use intercept_manifest::istio::resource::Intercept;
use intercept_manifest::istio::{names, preparation};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::model::Key;

/// How long the API server keeps a watch open, in seconds.
///
/// A silence of five seconds more is an error.
///
/// Without it a dead connection went unnoticed for over a minute.
const WATCH_TIMEOUT: u32 = 20;

/// The longest pause before a failed watch is retried.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// The cached objects.
pub(super) struct Watched {
    pub(super) intercepts: Store<Intercept>,
    plugins: Store<DynamicObject>,
    filters: Store<DynamicObject>,
}

impl Watched {
    pub(super) fn start(
        cluster: &Cluster,
        client: &Client,
        changed: &Arc<Notify>,
        log: fn(&str),
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let config = || watcher::Config::default().timeout(WATCH_TIMEOUT);
        let ours = format!("{}={}", names::MANAGED_BY, names::MANAGER);
        let dynamic = |kind: &Kind| {
            let resource = resource(kind);
            (Api::all_with(client.clone(), &resource), resource)
        };
        let (plugins, plugin_type) = dynamic(&kind::WASM_PLUGIN);
        let (filters, filter_type) = dynamic(&kind::ENVOY_FILTER);
        let intercepts: Api<Intercept> = Api::all(client.clone());
        let told = Told {
            cluster: cluster.clone(),
            changed: Arc::clone(changed),
            log,
        };
        Self {
            intercepts: reflect(intercepts, config(), (), &told, tasks),
            plugins: reflect(plugins, config().labels(&ours), plugin_type, &told, tasks),
            filters: reflect(
                filters,
                config().labels(&format!("{ours},{}", names::INTERCEPT)),
                filter_type,
                &told,
                tasks,
            ),
        }
    }

    pub(super) async fn wait_ready(&self) {
        let _ = self.intercepts.wait_until_ready().await;
        let _ = self.plugins.wait_until_ready().await;
        let _ = self.filters.wait_until_ready().await;
    }

    /// The EnvoyFilters owned by a WasmPlugin: `injector intercept` itself made the others.
    pub(super) fn filters(&self) -> BTreeMap<Key, Arc<DynamicObject>> {
        let filters = self.filters.state().into_iter();
        let filters = filters.filter(|filter| {
            let mut owners = filter.metadata.owner_references.iter().flatten();
            owners.any(|owner| owner.kind == kind::WASM_PLUGIN.name)
        });
        filters
            .filter_map(|filter| Some((key(&*filter)?, filter)))
            .collect()
    }

    pub(super) fn plugins(&self) -> BTreeMap<Key, Result<preparation::ControlledPlugin, String>> {
        let plugins = self.plugins.state().into_iter();
        let read = plugins.filter_map(|plugin| {
            let key = key(&*plugin)?;
            let object = serde_json::to_value(&*plugin).ok()?;
            let read = preparation::read(&object).map_err(|error| error.to_string());
            Some((key, read.transpose()?))
        });
        read.collect()
    }
}

fn resource(kind: &Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(kind.group, kind.version, kind.name),
        kind.plural,
    )
}

fn key(object: &impl Resource) -> Option<Key> {
    let metadata = object.meta();
    Some(Key::new(
        metadata.namespace.as_deref()?,
        metadata.name.as_deref()?,
    ))
}

/// Caches all objects of a kind, and notifies of changes.
fn reflect<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: K::DynamicType,
    told: &Told,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    let writer = reflector::store::Writer::new(kind);
    let store = writer.as_reader();
    let events = watcher(api, config)
        .backoff(Patient::default())
        .reflect(writer);
    tasks.spawn(drain(events, told.clone()));
    store
}

/// Where a watch reports changes and errors.
#[derive(Clone)]
struct Told {
    cluster: Cluster,
    changed: Arc<Notify>,
    log: fn(&str),
}

async fn drain<K>(events: impl Stream<Item = watcher::Result<watcher::Event<K>>>, told: Told) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => told.changed.notify_one(),
            Err(error) => {
                (told.log)(&format!("watch: {error}"));
                // The cause may have broken the connections for writes as well, and each would delay a write by 20 s.
                told.cluster.reconnect().await;
            }
        }
    }
}

/// Doubles from a quarter of a second up to [`LONGEST_BACKOFF`].
#[derive(Default)]
struct Patient(u32);

impl Iterator for Patient {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(250) * 2_u32.pow(self.0.min(3));
        self.0 = self.0.saturating_add(1);
        Some(pause.min(LONGEST_BACKOFF))
    }
}

impl Backoff for Patient {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

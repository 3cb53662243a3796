//! One workload of a mesh as a developer intercepts it: found, checked, and its entries written, renewed and removed. Every change holds only for what was read before it.

use std::collections::BTreeSet;
use std::time::Duration;

use intercept_core::{Document, Intercept};
use serde_json::Value;

use super::clock::Clock;
use super::environment;
use super::events::{self, Happened};
use super::live;
use super::plugin::Plugin;
use super::prepared::{self, Prepared};
use super::relay::Relays;
use super::rights::Rights;
use super::sidecar::Awaited;
use super::store::{self, Store};
use super::{failure, pods};
use crate::backend::{
    Live, NotRenewed, Placement, Replicas, SelectPort, TargetPort, USUAL_MESH, settled,
};
use crate::cluster::{Cluster, kind};
use crate::environment::Environment;
use crate::hint::{Failure, Result};
use crate::install_line::Kept;
use crate::lookup::{self, Found, Listed};
use crate::manifest::istio::intercept::{own_cluster, shared_cluster};
use crate::manifest::istio::{Kind, NewIntercept, Port, intercept_objects, names};
use crate::session::presence::Presence;

/// How long to wait for the replicas to let go of an entry that makes room for another one.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// A workload that an operator prepared, seen by one developer.
#[derive(Debug)]
pub struct Target {
    store: Store,
    prepared: Prepared,
    found: Found,
    pods: Vec<Value>,
    /// Whom the API server takes the caller for.
    owner: String,
    relays: Relays,
    rights: Rights,
    /// What a line to prepare it again says again.
    kept: Kept,
}

impl Target {
    /// Finds what TARGET means and checks that it can be intercepted by the caller.
    pub async fn open(cluster: &Cluster, target: &str) -> Result<Self> {
        let wanted = lookup::wanted(target)?;
        let namespace = cluster.namespace();
        let (listed, owner) =
            tokio::join!(Listed::read(cluster, namespace, None), cluster.whoami());
        let found = lookup::find(wanted, &listed?)?;
        let name = names::of_workload_named(found.kind, &found.name);
        let (gate, plugin, pods) = tokio::join!(
            cluster.get(&kind::ENVOY_FILTER, Some(namespace), &name),
            cluster.get(&kind::WASM_PLUGIN, Some(namespace), &name),
            async {
                let selector = selector_of(&found);
                cluster
                    .list(&kind::POD, Some(namespace), Some(&selector))
                    .await
            },
        );
        let (Some(gate), Some(plugin)) = (gate?, plugin?) else {
            return Err(not_prepared(namespace, &found));
        };
        Plugin::read(&plugin).map_err(failure::of_plugin)?;
        let prepared = prepared::read(&gate).map_err(failure::of_gate)?;
        let mesh = &prepared.mesh;
        let relays = Relays::new(cluster, &mesh.namespace, mesh.relay_replicas);
        let rights = Rights::ask(
            cluster,
            namespace,
            &name,
            (relays.namespace(), mesh.relay_replicas),
        )
        .await?;
        Ok(Self {
            store: Store::new(cluster, namespace, &name, Clock::default()),
            pods: pods?,
            owner: owner?.name,
            prepared,
            found,
            kept: Kept::of(&plugin, Some(&gate), relays.namespace()),
            relays,
            rights,
        })
    }

    /// The workload's name.
    pub fn name(&self) -> &str {
        &self.found.name
    }

    /// Who asks.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Seconds since the epoch, by the API server.
    pub async fn now(&self) -> Result<u64> {
        Ok(self.store.now().await?)
    }

    /// The prepared port that a word of `--port` means; the only one without a word.
    pub fn port(&self, word: Option<&str>) -> Result<TargetPort> {
        let namespace = self.store.namespace();
        let place = self.store.cluster().place_flags(Some(namespace));
        let meant = match word {
            Some(word) => match lookup::meant(&self.found, word) {
                Some(number) => Some(number),
                // A port that nothing declares can be prepared all the same.
                None => word.parse().ok(),
            },
            None => None,
        };
        let shown = |port: &Port| {
            let names = lookup::port_names(&self.found, port.number);
            SelectPort {
                number: port.number,
                name: names
                    .services
                    .iter()
                    .find_map(|service| service.name.clone())
                    .or(names.container),
            }
        };
        let ports = &self.prepared.workload.ports;
        // A Service that leads to some of them only means those.
        let of_service = |port: &&Port| {
            !lookup::port_names(&self.found, port.number)
                .services
                .is_empty()
        };
        let mut offered: Vec<&Port> = ports.iter().filter(of_service).collect();
        if offered.is_empty() {
            offered = ports.iter().collect();
        }
        let port = match (word, meant, offered.as_slice()) {
            (Some(word), meant, _) => ports
                .iter()
                .find(|port| Some(port.number) == meant)
                .ok_or_else(|| {
                    failure::no_such_port(
                        (namespace, &place),
                        &self.found,
                        &self.kept,
                        word,
                        meant,
                        &offered.iter().map(|port| shown(port)).collect::<Vec<_>>(),
                    )
                })?,
            (None, _, [only]) => only,
            (None, ..) => {
                let offered: Vec<_> = offered.iter().map(|port| shown(port)).collect();
                return Err(failure::several_ports(&place, &self.found.name, &offered));
            }
        };
        Ok(TargetPort {
            number: port.number,
            protocol: port.protocol,
            url: self.url(port.number),
        })
    }

    /// The URL inside the cluster.
    fn url(&self, number: u16) -> String {
        let namespace = self.store.namespace();
        let names = lookup::port_names(&self.found, number);
        match names.services.first() {
            Some(service) if service.number == 80 => {
                format!("http://{}.{namespace}", service.service)
            }
            Some(service) => format!("http://{}.{namespace}:{}", service.service, service.number),
            None => format!("http://POD-IP:{number}"),
        }
    }

    /// Refuses what would not work, before anything is opened or written. `all`: everybody's requests are asked for.
    pub fn check(&self, port: u16, all: bool) -> Result<()> {
        self.rights.check(self.store.namespace())?;
        pods::check(self.store.namespace(), &self.pods, port, all)
    }

    /// The environment of the container that serves this port, read with the caller's own rights.
    pub async fn environment(&self, port: u16) -> Result<Environment> {
        let (cluster, namespace) = (self.store.cluster(), self.store.namespace());
        environment::read(cluster, namespace, self.found.template(), &self.pods, port).await
    }

    /// Where the tunnel of this intercept ends, and the cluster that leads there.
    pub async fn place(&self, name: &str, port: u16) -> Result<Placement> {
        self.place_beside(name, port, &BTreeSet::new()).await
    }

    /// The same besides the relays of these numbers.
    pub async fn place_beside(
        &self,
        name: &str,
        port: u16,
        full: &BTreeSet<u16>,
    ) -> Result<Placement> {
        let allowed = self.rights.relays.difference(full).copied().collect();
        let replica = self.relays.choose(name, &allowed).await?;
        Ok(Placement {
            relay: self.relays.end(replica),
            cluster: match self.rights.clusters {
                true => own_cluster(name, port),
                false => shared_cluster(replica, port),
            },
            identity: Some(pods::identity(
                self.store.namespace(),
                self.found.template(),
                &self.pods,
            )),
            replica,
        })
    }

    /// Is the caller's own developer machine of this address connected? A tunnel of theirs ends at a relay that they may forward ports to; where there is none, nobody can tell.
    pub async fn presence(&self, address: &str) -> Presence {
        let relays = self
            .rights
            .relays
            .iter()
            .map(|relay| self.relays.end(*relay));
        let answers = super::ask_relays(relays, &[address]).await;
        answers.first().copied().unwrap_or(Presence::Unknown)
    }

    /// All intercepts of the workload, as they are this moment.
    pub async fn document(&self) -> Result<Document> {
        Ok(self.store.plugin().await?.document)
    }

    /// The same; `None`: the preparation of the workload was taken back.
    pub async fn there(&self) -> Result<Option<Document>> {
        Ok(self.store.read().await?.map(|plugin| plugin.document))
    }

    async fn find(&self, name: &str) -> Result<Option<Intercept>> {
        let there = self.there().await?;
        Ok(there.and_then(|mut there| there.intercepts.remove(name)))
    }

    /// What the filter is given, as it stands there: with what it leaves out.
    pub async fn configuration(&self) -> Result<Vec<u8>> {
        let plugin = self.store.plugin().await?;
        Ok(plugin.configuration.to_string().into_bytes())
    }

    /// The objects that an intercept consists of, in the order in which they are applied.
    pub fn objects(&self, name: &str, intercept: &Intercept, replica: u16) -> Result<Vec<Value>> {
        let new = NewIntercept {
            name,
            entry: intercept,
            relay: replica,
        };
        let Prepared { mesh, workload } = &self.prepared;
        let objects = intercept_objects(mesh, workload, new)
            .map_err(|error| Failure::failed(error, "injector doctor"))?;
        Ok(objects
            .iter()
            .map(|object| object.value().clone())
            .collect())
    }

    /// Adds an intercept if `check` allows it for what is there at that moment: the entry is written for exactly the version of the object that was checked, and anew for a newer one.
    pub async fn add(
        &self,
        name: &str,
        intercept: &Intercept,
        replica: u16,
        check: &(dyn Fn(&Document) -> Result<()> + Sync),
    ) -> Result<()> {
        let objects = self.objects(name, intercept, replica)?;
        let (entry, clusters) = match objects.split_last() {
            Some(parts) => parts,
            None => return Ok(()),
        };
        self.store.check_name(name).await?;
        let (document, filter) = tokio::join!(self.document(), self.store.cluster_filter(name));
        let document = document?;
        check(&document)?;
        if !clusters.is_empty() {
            self.make_room(name, intercept, &document).await?;
        }
        for cluster in clusters {
            self.store.apply_cluster(name, cluster).await?;
        }
        let added = self.store.add_entry(name, intercept, entry, check).await;
        if added.is_err() {
            let before = filter.ok().flatten();
            // Whoever it is for mends it as well.
            let _ = self
                .take_back(name, intercept, before.as_ref(), replica)
                .await;
        }
        added?;
        let hold = async {
            match clusters {
                [cluster] => self.store.hold_cluster(name, intercept, cluster).await,
                _ => Ok(()),
            }
        };
        let tell = self
            .store
            .tell(self.regarding(), Happened::Created, name, intercept);
        // Beside each other, so that nobody waits longer.
        let (held, ()) = tokio::join!(hold, tell);
        held
    }

    /// Removes the entry of the name that is for another port, and waits until no replica has it: its cluster bears that port, and goes with the object that it shares with the new one.
    async fn make_room(&self, name: &str, new: &Intercept, document: &Document) -> Result<()> {
        let before = document.intercepts.get(name);
        if let Some(before) = before.filter(|before| has_other_cluster(name, before, new)) {
            // No Event: the name is taken, and what took it is told.
            self.store.remove(name, &before.address).await?;
            self.wait_gone(name, GONE_TIMEOUT).await;
        }
        Ok(())
    }

    /// After a refusal, what was written first must not stay behind alone, and if it was written over the cluster of an entry that came meanwhile, that one comes back.
    async fn take_back(
        &self,
        name: &str,
        refused: &Intercept,
        before: Option<&Value>,
        replica: u16,
    ) -> Result<()> {
        self.store.clear_cluster(name).await?;
        match self.find(name).await? {
            Some(there) if has_other_cluster(name, &there, refused) => {
                // A name mostly keeps its relay.
                let relay = before.and_then(prepared::relay_of);
                let replica = relay.map_or(replica, |(_, replica)| replica);
                self.mend(name, &there, replica).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Applies an intercept's own cluster where it is gone, or where another one is in its place, if the entry still is that tunnel's; `true`: it did.
    pub async fn mend(&self, name: &str, intercept: &Intercept, replica: u16) -> Result<bool> {
        if intercept.cluster != own_cluster(name, intercept.port) {
            return Ok(false);
        }
        let is_there = match self.store.cluster_filter(name).await {
            // Whoever may not read it cannot say that it is gone.
            Err(error) if error.is_forbidden() => true,
            filter => {
                filter?.is_some_and(|filter| prepared::has_cluster(&filter, &intercept.cluster))
            }
        };
        if is_there {
            return Ok(false);
        }
        // Read after the object: whoever removes the entry removes its cluster next.
        let there = self.find(name).await?;
        if there.is_none_or(|there| there.address != intercept.address) {
            return Ok(false);
        }
        for object in self.objects(name, intercept, replica)? {
            if object["kind"] == kind::ENVOY_FILTER.name {
                self.store.apply_cluster(name, &object).await?;
            }
        }
        // Whoever has removed the entry meanwhile may have looked before.
        self.store.clear_cluster(name).await?;
        Ok(true)
    }

    /// Moves the end of a lease, in seconds since the epoch.
    pub async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        self.store.renew(name, address, expires).await
    }

    /// Removes an intercept's entry if it still is that tunnel's.
    pub async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        let removed = self.store.remove(name, address).await?;
        if let Some(intercept) = &removed {
            self.store
                .tell(self.regarding(), Happened::Removed, name, intercept)
                .await;
        }
        Ok(removed)
    }

    /// Removes the cluster of an intercept whose entry is gone.
    pub async fn clear(&self, name: &str) -> Result<()> {
        self.store.clear_cluster(name).await
    }

    /// Who removed the intercept of this name that was created then, where the caller may read Events and the remover could write one.
    pub async fn who_removed(&self, name: &str, created: u64) -> Option<String> {
        let cluster = self.store.cluster();
        let namespace = Some(self.store.namespace());
        let events = cluster.list(&kind::EVENT, namespace, None).await.ok()?;
        events::who_removed(&events, name, created)
    }

    /// Removes what nobody renewed for a long time.
    pub async fn sweep(&self) -> Result<Vec<String>> {
        let now = self.now().await?;
        store::sweep(&self.store, self.regarding(), now).await
    }

    /// Waits until all replicas have the entry of this address (`None`: none of this name) and, with it, the cluster.
    pub async fn wait(
        &self,
        name: &str,
        address: Option<&str>,
        cluster: Option<&str>,
        timeout: Duration,
        progress: &(dyn Fn(Replicas) + Sync),
    ) -> Live {
        if !self.rights.admin {
            return Live::NotVerified {
                why: format!(
                    "you may not forward ports to the pods of {}",
                    self.store.namespace()
                ),
            };
        }
        let awaited = Awaited {
            namespace: self.store.namespace().to_owned(),
            selector: store::selector(&self.prepared.workload.selector),
            plugin: self.store.plugin_name().to_owned(),
            name: name.to_owned(),
            address: address.map(str::to_owned),
            cluster: cluster.map(str::to_owned),
        };
        live::wait(self.store.cluster(), awaited, timeout, progress).await
    }

    /// Waits until no replica has an entry of this name; where that cannot be seen, for as long as it usually takes.
    pub async fn wait_gone(&self, name: &str, timeout: Duration) -> Live {
        let live = self.wait(name, None, None, timeout, &|_| {}).await;
        settled(live, USUAL_MESH).await
    }

    fn regarding(&self) -> (Kind, &str) {
        (self.found.kind, &self.found.name)
    }
}

/// Does this entry have a cluster for itself, and another one than `new`? Both are in the one object that the name has.
fn has_other_cluster(name: &str, entry: &Intercept, new: &Intercept) -> bool {
    entry.cluster == own_cluster(name, entry.port) && entry.cluster != new.cluster
}

/// The pods of a workload, by the labels of its template.
fn selector_of(found: &Found) -> String {
    let labels = found.template()["metadata"]["labels"].as_object();
    let labels = labels.into_iter().flatten();
    let pairs: Vec<String> = labels
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    pairs.join(",")
}

fn not_prepared(namespace: &str, found: &Found) -> Failure {
    Failure::failed(
        format!(
            "{}: no operator has prepared this workload, so it cannot be intercepted",
            found.label()
        ),
        format!(
            "an operator prepares it (open connections are drained once): {}",
            found.install_command(namespace)
        ),
    )
}

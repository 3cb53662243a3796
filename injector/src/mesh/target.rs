//! One workload of a mesh as a developer intercepts it: found and checked. Its intercepts are written in `intercepts`.

mod intercepts;

use std::collections::BTreeSet;
use std::time::Duration;

use intercept_core::{Document, Intercept};
use serde_json::Value;

use super::clock::Clock;
use super::environment;
use super::live;
use super::live::USUAL_MESH;
use super::plugin::Plugin;
use super::relay::{Relays, ask_relays};
use super::rights::Rights;
use super::sidecar::Awaited;
use super::store::Store;
use super::{failure, pods};
use crate::cluster::{Cluster, kind};
use crate::environment::Environment;
use crate::hint::{Failure, Result};
use crate::install_line::Kept;
use crate::lookup::{self, Found, Listed, ports};
use crate::manifest::istio::intercept::{own_cluster, shared_cluster};
use crate::manifest::istio::prepared::{self, Prepared};
use crate::manifest::istio::{Kind, Port, names};
use crate::model::{Live, Placement, Replicas, SelectPort, TargetPort, settled};
use crate::tunnel::presence::Presence;

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
        let name = names::of_workload(found.kind, &found.name);
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
            kept: Kept::of(&plugin, relays.namespace()),
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
            Some(word) => match ports::meant(&self.found, word) {
                Some(number) => Some(number),
                // A port that nothing declares can be prepared all the same.
                None => word.parse().ok(),
            },
            None => None,
        };
        let shown = |port: &Port| {
            let names = ports::port_names(&self.found, port.number);
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
            !ports::port_names(&self.found, port.number)
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
        let names = ports::port_names(&self.found, number);
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
        let answers = ask_relays(relays, &[address]).await;
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
            selector: pods::selector(&self.prepared.workload.selector),
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

    /// An intercept of this name lost the WasmPlugin that it was in.
    pub fn gone(&self, name: &str) -> Failure {
        Failure::failed(
            format!(
                "{name}: {} is no longer prepared for intercepts: WasmPlugin {}/{} not found",
                self.found.label(),
                self.store.namespace(),
                self.store.plugin_name()
            ),
            format!(
                "an operator prepares it: {}",
                self.found.install_command(self.store.namespace())
            ),
        )
    }

    fn regarding(&self) -> (Kind, &str) {
        (self.found.kind, &self.found.name)
    }
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

//! One workload of a mesh as a developer intercepts it: found and checked, and its Intercepts.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use intercept_core::{Document, Intercept, TEXT_SCHEMA_VERSION};
use intercept_kube::intercepts::{Intercepts, RenewError, renew_time};
use intercept_kube::pods;
use intercept_kube::resolve::{self, Listed, Resolved, ports};
use intercept_kube::rights::Rights;
use intercept_kube::{Cluster, kind};
use intercept_manifest::cluster;
use intercept_manifest::istio::intercept::intercept_objects;
use intercept_manifest::istio::preparation::{self, ControlledPlugin, Preparation};
use intercept_manifest::istio::resource::{
    ACCEPTED, Condition, Intercept as Resource, InterceptSpec, Match, PROGRAMMED, Tunnel,
    WRITE_REFUSED, WorkloadRef,
};
use intercept_manifest::istio::{Port, names};
use intercept_tunnel::presence::Presence;
use intercept_tunnel::relay_end::RelayEnd;
use serde_json::{Value, json};

use super::clock::Clock;
use super::environment;
use super::failure;
use super::outbound::Outbound;
use super::relay::{Relays, ask_relays};
use crate::environment::Environment;
use crate::error::{CliError, Result};
use crate::install_args::{self, InstallArgs};
use crate::model::{
    Check, Live, Named, NotRenewed, Placement, Plan, Replicas, Seen, SelectPort, Target,
    TargetPort, settled,
};
use crate::shell::{context_flags, quote};

/// How long the proxies usually need until they have let go of an intercept, where that cannot be seen.
pub const USUAL_MESH: Duration = Duration::from_secs(1);

/// How long the controller may take to say whether it accepts an Intercept: longer than one that is replaced is away.
const CONTROLLER: Duration = Duration::from_secs(10);

/// How long the controller may take to end one whose lease was given back; it waits 2 s for the proxies.
const ENDING: Duration = Duration::from_secs(3);

/// How many names are made of one that is taken.
const NAMES: usize = 20;

/// How often a name is tried that was taken when it was to be created.
const ATTEMPTS: usize = 5;

/// A workload that an operator prepared, seen by one developer.
#[derive(Debug)]
pub struct MeshTarget {
    cluster: Cluster,
    namespace: String,
    intercepts: Intercepts,
    clock: Clock,
    /// As the operator prepared it when the command began.
    preparation: Preparation,
    found: Resolved,
    pods: Vec<Value>,
    /// The caller's identity according to the API server.
    owner: String,
    relays: Relays,
    rights: Rights,
    /// What a line to prepare it again says again.
    kept: InstallArgs,
}

impl MeshTarget {
    /// Finds what TARGET means and checks that it can be intercepted by the caller.
    pub async fn open(cluster: &Cluster, target: &str) -> Result<Self> {
        let wanted = resolve::wanted(target)?;
        let namespace = cluster.namespace();
        let (listed, owner) =
            tokio::join!(Listed::read(cluster, namespace, None), cluster.whoami());
        let found = resolve::find(wanted, &listed?)?;
        let name = names::of_workload(found.kind, &found.name);
        let selector = selector_of(&found);
        let (plugin, pods) = tokio::join!(
            cluster.get(&kind::WASM_PLUGIN, Some(namespace), &name),
            cluster.list(&kind::POD, Some(namespace), Some(&selector)),
        );
        let Some(plugin) = plugin? else {
            return Err(not_prepared(namespace, &found));
        };
        let prepared = preparation::read(&plugin).map_err(failure::of_plugin)?;
        let preparation = match prepared {
            Some(prepared) => prepared.preparation,
            None => return Err(failure::of_older_plugin(namespace, &found)),
        };
        let mesh = &preparation.mesh;
        let relays = Relays::new(cluster, &mesh.namespace, mesh.relay_replicas);
        let rights = Rights::ask(
            cluster,
            namespace,
            (relays.namespace(), mesh.relay_replicas),
        )
        .await?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            intercepts: Intercepts::new(cluster, namespace),
            clock: Clock::default(),
            pods: pods?,
            owner: owner?.name,
            preparation,
            found,
            kept: InstallArgs::of(&plugin, relays.namespace()),
            relays,
            rights,
        })
    }

    /// The URL inside the cluster.
    fn url(&self, number: u16) -> String {
        let namespace = &self.namespace;
        let names = ports::port_names(&self.found, number);
        match names.services.first() {
            Some(service) if service.number == 80 => {
                format!("http://{}.{namespace}", service.service)
            }
            Some(service) => format!("http://{}.{namespace}:{}", service.service, service.number),
            None => format!("http://POD-IP:{number}"),
        }
    }

    async fn place_among(
        &self,
        name: &str,
        port: u16,
        allowed: &BTreeSet<u16>,
    ) -> Result<Placement> {
        let replica = self.relays.choose(name, allowed).await?;
        Ok(Placement {
            relay: self.relays.end(replica),
            cluster: cluster::mesh_intercept_name(port, name, replica),
            identity: Some(pods::identity(
                &self.namespace,
                self.found.template(),
                &self.pods,
            )),
            replica,
        })
    }

    /// The WasmPlugin, as it is this moment; `None`: the preparation of the workload was taken back.
    async fn plugin(&self) -> Result<Option<ControlledPlugin>> {
        let name = self.plugin_name();
        let object = self
            .cluster
            .get(&kind::WASM_PLUGIN, Some(&self.namespace), &name)
            .await?;
        let plugin = object.as_ref().map(preparation::read).transpose();
        Ok(plugin.map_err(failure::of_plugin)?.flatten())
    }

    async fn must_plugin(&self) -> Result<ControlledPlugin> {
        let plugin = self.plugin().await?;
        plugin.ok_or_else(|| self.gone(&self.found.label()))
    }

    fn plugin_name(&self) -> String {
        names::of_workload(self.found.kind, &self.found.name)
    }

    fn is_of_this_workload(&self, intercept: &Resource) -> bool {
        let WorkloadRef { kind, name } = &intercept.spec.workload;
        (*kind, name) == (self.found.kind, &self.found.name)
    }

    /// An intercept's name is its object's, so it can be used once in a namespace.
    fn entry_of(&self, there: &Resource) -> Result<Intercept> {
        if self.is_of_this_workload(there) {
            return Ok(there.entry(there.expires()));
        }
        let name = there.name();
        Err(CliError::failed(
            format!(
                "{name}: an intercept of {} has this name",
                there.spec.workload.name
            ),
            format!(
                "choose another one with --name, or end it: injector leave{} {}",
                context_flags(&self.cluster.flags(Some(&self.namespace))),
                quote(name)
            ),
        ))
    }

    fn resource(&self, plan: &Plan, entry: &Intercept) -> Resource {
        let mut resource = Resource::new(
            &plan.name,
            InterceptSpec {
                owner: entry.owner.clone(),
                workload: WorkloadRef {
                    kind: self.found.kind,
                    name: self.found.name.clone(),
                },
                port: entry.port,
                r#match: Match::of(entry),
                tunnel: Tunnel {
                    relay: plan.place.replica,
                    address: entry.address.clone(),
                },
                lease_seconds: u32::try_from(plan.lease.as_secs()).unwrap_or(u32::MAX),
                renew_time: Some(renew_time()),
                allow_overlap: plan.allow_overlap.then_some(true),
            },
        );
        resource.metadata.namespace = Some(self.namespace.clone());
        resource
    }

    /// Deletes that which the plan replaces, or refuses.
    async fn make_room(&self, plan: &Plan) -> Result<()> {
        match self.intercepts.get(&plan.name).await? {
            None => Ok(()),
            Some(there) if plan.replaces.as_ref() == Some(&there.spec.tunnel.address) => {
                Ok(self.intercepts.delete_this(&there).await.map(drop)?)
            }
            Some(there) => Err(plan.taken_by(&there.spec.owner)),
        }
    }

    async fn wait_accepted(&self, plan: &Plan, address: &str) -> Result<()> {
        let judged = |there: &Resource| {
            let refused = |why: &Condition| Some(Err(self.not_accepted(&plan.name, why)));
            let programmed = there.condition(PROGRAMMED);
            match (there.condition(ACCEPTED), programmed) {
                (Some(accepted), _) if accepted.status == "True" => Some(Ok(())),
                (Some(accepted), _) => refused(accepted),
                (None, Some(programmed)) if programmed.reason == "ClockSkew" => refused(programmed),
                (None, _) => None,
            }
        };
        let name = &plan.name;
        let answer = self.intercepts.until(name, address, CONTROLLER, judged);
        let answer = answer.await?.unwrap_or_else(|| Err(self.no_controller()));
        if answer.is_err() {
            // What was refused must not stay behind; the lease ends it otherwise.
            let _ = self.intercepts.delete(name, address).await;
        }
        answer
    }

    fn not_accepted(&self, name: &str, why: &Condition) -> CliError {
        let hint = match why.reason.as_str() {
            "Conflict" => {
                "add a header that only you send, or create it all the same with --allow-overlap"
                    .to_owned()
            }
            "NotPrepared" => format!(
                "an operator prepares it: {}",
                install_args::usual(&self.namespace, &self.found.label())
            ),
            "ClockSkew" => {
                "an operator sets the clocks of the cluster's nodes: injector doctor".to_owned()
            }
            "TooMany" => format!(
                "injector list{}",
                context_flags(&self.cluster.flags(Some(&self.namespace)))
            ),
            WRITE_REFUSED => format!(
                "an operator lets the controller write it: kubectl -n {} logs deployment/{}",
                quote(&self.preparation.mesh.namespace),
                names::CONTROLLER
            ),
            _ => "ask an operator, or use other conditions: injector intercept --help".to_owned(),
        };
        CliError::failed(format!("{name}: {}", why.message), hint)
    }

    fn no_controller(&self) -> CliError {
        let namespace = quote(&self.preparation.mesh.namespace);
        CliError::failed(
            format!("no controller answers in {namespace}: nothing new can be intercepted"),
            format!(
                "kubectl -n {namespace} get deployment {}; injector doctor",
                names::CONTROLLER
            ),
        )
        .passing(true)
    }
}

#[async_trait(?Send)]
impl Target for MeshTarget {
    fn name(&self) -> &str {
        &self.found.name
    }

    fn owner(&self) -> String {
        self.owner.clone()
    }

    fn port(&self, word: Option<&str>) -> Result<TargetPort> {
        let namespace = self.namespace.as_str();
        let place = context_flags(&self.cluster.flags(Some(namespace)));
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
        let ports = &self.preparation.workload.ports;
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

    fn check(&self, port: u16, all: bool) -> Result<()> {
        failure::of_rights(&self.namespace, &self.rights.missing)?;
        Ok(pods::check(&self.namespace, &self.pods, port, all)?)
    }

    fn has_environment(&self) -> bool {
        true
    }

    /// The environment of the container that serves this port, read with the caller's own rights.
    async fn environment(&self, port: u16) -> Result<Environment> {
        environment::read(
            &self.cluster,
            &self.namespace,
            self.found.template(),
            &self.pods,
            port,
        )
        .await
    }

    async fn outbound(&self) -> Result<RelayEnd> {
        let account = self.found.template()["spec"]["serviceAccountName"].as_str();
        let outbound = Outbound::find(&self.cluster, &self.namespace, account.or(Some("default")));
        Ok(outbound.await?.end())
    }

    fn names(&self) -> (Option<&str>, &str) {
        (Some(&self.namespace), &self.preparation.mesh.cluster_domain)
    }

    async fn place(&self, name: &str, port: u16) -> Result<Placement> {
        self.place_among(name, port, &self.rights.relays).await
    }

    async fn place_beside(&self, name: &str, port: u16, full: &BTreeSet<u16>) -> Option<Placement> {
        let allowed = self.rights.relays.difference(full).copied().collect();
        let place = self.place_among(name, port, &allowed).await;
        place.ok()
    }

    /// Is the caller's own developer machine of this address connected? A tunnel of theirs ends at a relay that they may forward ports to; where there is none, it is not known.
    async fn presence(&self, address: &str) -> Presence {
        let relays = self
            .rights
            .relays
            .iter()
            .map(|relay| self.relays.end(*relay));
        let answers = ask_relays(relays, &[address]).await;
        answers.first().copied().unwrap_or(Presence::Unknown)
    }

    /// The operator's limits and the intercepts of the workload that are not refused, as they are this moment.
    async fn document(&self) -> Result<Document> {
        let list = Intercepts::list(&self.cluster, Some(&self.namespace));
        let (plugin, all) = tokio::join!(self.must_plugin(), list);
        let all = all?.into_iter();
        let there = all.filter(|one| self.is_of_this_workload(one) && one.refusal().is_none());
        Ok(Document {
            version: TEXT_SCHEMA_VERSION,
            limits: plugin?.limits,
            intercepts: there
                .map(|one| (one.name().to_owned(), one.entry(one.expires())))
                .collect(),
        })
    }

    async fn configuration(&self) -> Result<Vec<u8>> {
        let plugin = self.must_plugin().await?;
        Ok(plugin.configuration().to_string().into_bytes())
    }

    async fn look(&self, name: &str) -> Result<Seen> {
        let (plugin, there) = tokio::join!(self.plugin(), self.intercepts.get(name));
        let there = there?;
        Ok(Seen {
            refusal: there
                .as_ref()
                .and_then(Resource::refusal)
                .map(str::to_owned),
            entry: there.map(|there| there.entry(there.expires())),
            limits: plugin?.map(|plugin| plugin.limits),
            now: self.now().await?,
        })
    }

    /// This name with what has it; where it is only the usual one and another developer or another workload has it, one that is made of it.
    async fn named(&self, _: &Document, usual: String, is_usual: bool) -> Result<Named> {
        let (mut name, mut there) = (usual.clone(), self.intercepts.get(&usual).await?);
        let is_free = |there: &Option<Resource>| {
            there.as_ref().is_none_or(|there| {
                there.spec.owner == self.owner && self.is_of_this_workload(there)
            })
        };
        for number in 2..=NAMES {
            if !is_usual || is_free(&there) {
                break;
            }
            name = numbered(&usual, number);
            there = self.intercepts.get(&name).await?;
        }
        let holder = there.map(|there| self.entry_of(&there)).transpose()?;
        Ok(Named { name, holder })
    }

    async fn find(&self, name: &str) -> Result<Option<Intercept>> {
        let there = self.intercepts.get(name).await?;
        there.map(|there| self.entry_of(&there)).transpose()
    }

    /// The object that is created, and what the controller writes for it: a `List`, as kubectl takes it.
    async fn rendered(&self, plan: &Plan, entry: &Intercept) -> Result<Value> {
        let plugin = self.must_plugin().await?;
        let resource = self.resource(plan, entry);
        let objects = intercept_objects(&plugin, &resource, entry).unwrap_or_default();
        let items: Vec<_> = objects.iter().map(|object| object.value()).collect();
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
    }

    /// Creates an Intercept if `check` allows it for what is there at that moment, in the place of that which the plan replaces, and waits until the controller has accepted it.
    async fn add(&self, plan: &Plan, entry: &Intercept, check: &Check<'_>) -> Result<()> {
        check(&self.document().await?)?;
        let resource = self.resource(plan, entry);
        for _ in 0..ATTEMPTS {
            match self.intercepts.create(&resource).await {
                Ok(()) => return self.wait_accepted(plan, &entry.address).await,
                Err(error) if error.code() == Some(409) => self.make_room(plan).await?,
                Err(error) => return Err(failure::refused(error)),
            }
        }
        Err(CliError::failed(
            format!(
                "{}: others take this name faster than this command can",
                plan.name
            ),
            "try again",
        )
        .passing(true))
    }

    /// The controller counts the lease by its own clock.
    async fn renew(&self, name: &str, address: &str, _expires: u64) -> Result<(), NotRenewed> {
        let renewed = self.intercepts.renew(name, address).await;
        renewed.map_err(|error| match error {
            RenewError::Removed => NotRenewed::Removed,
            RenewError::Taken { owner } => NotRenewed::Taken(owner),
            other => NotRenewed::Failed(other.to_string()),
        })
    }

    fn gone(&self, name: &str) -> CliError {
        CliError::failed(
            format!(
                "{name}: {} is no longer prepared for intercepts: WasmPlugin {}/{} not found",
                self.found.label(),
                self.namespace,
                self.plugin_name()
            ),
            format!(
                "an operator prepares it: {}",
                install_args::usual(&self.namespace, &self.found.label())
            ),
        )
    }

    /// Ends the lease of that tunnel's intercept; the controller takes it from the proxies.
    async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        let removed = self.intercepts.give_back(name, address).await;
        let removed = removed.map_err(failure::refused)?;
        Ok(removed.map(|there| there.entry(there.expires())))
    }

    /// Waits until all replicas have it, as far as the controller can see that. An error: none will have it.
    async fn wait_live(
        &self,
        name: &str,
        entry: &Intercept,
        timeout: Duration,
        progress: &(dyn Fn(Replicas) + Sync),
    ) -> Result<Live> {
        let mut lacks = "it is gone".to_owned();
        let judged = |there: &Resource| {
            let replicas = there.status.as_ref().and_then(|status| status.replicas);
            if let Some(replicas) = replicas {
                progress(replicas.into());
            }
            if let Some(obstacle) = there.obstacle() {
                return Some(Err(self.not_accepted(name, obstacle)));
            }
            let programmed = there.condition(PROGRAMMED)?;
            lacks.clone_from(&programmed.message);
            match programmed.status.as_str() {
                "True" => Some(Ok(Live::Verified)),
                "Unknown" => Some(Ok(Live::NotVerified {
                    why: programmed.message.clone(),
                })),
                _ => None,
            }
        };
        match self
            .intercepts
            .until(name, &entry.address, timeout, judged)
            .await
        {
            Ok(Some(live)) => live,
            Ok(None) => Ok(Live::NotVerified { why: lacks }),
            Err(error) => Ok(Live::NotVerified {
                why: error.to_string(),
            }),
        }
    }

    async fn wait_gone(&self, name: &str, address: &str, timeout: Duration) -> Live {
        wait_gone(&self.intercepts, name, address, timeout).await
    }

    fn has_clusters(&self) -> bool {
        false
    }

    /// Deletes that tunnel's Intercept where the controller did not.
    async fn clear(&self, plan: &Plan, address: &str) -> Result<()> {
        let deleted = self.intercepts.delete(&plan.name, address).await;
        deleted.map(drop).map_err(failure::refused)
    }

    /// An API server that comes back refuses all requests for some seconds, until it has read the roles.
    fn undo_patience(&self) -> Duration {
        Duration::from_secs(40)
    }

    /// Each look is a request to the API server, from every developer.
    fn look_every(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn now(&self) -> Result<u64> {
        Ok(self.clock.now(&self.cluster).await?)
    }
}

/// Waits until that tunnel's Intercept is gone, which the controller deletes once no replica has it; where that is not seen, for as long as it usually takes.
pub(super) async fn wait_gone(
    intercepts: &Intercepts,
    name: &str,
    address: &str,
    within: Duration,
) -> Live {
    let live = match intercepts
        .wait_gone(name, address, within.min(ENDING))
        .await
    {
        true => Live::Verified,
        false => Live::NotVerified {
            why: "its removal was not seen".to_owned(),
        },
    };
    settled(live, USUAL_MESH).await
}

/// `orders-bob-2`, no longer than a DNS label.
fn numbered(name: &str, number: usize) -> String {
    let end = format!("-{number}");
    let length = name.floor_char_boundary(63 - end.len());
    format!("{}{end}", name[..length].trim_end_matches('-'))
}

/// The pods of a workload, by the labels of its template.
fn selector_of(found: &Resolved) -> String {
    let labels = found.template()["metadata"]["labels"].as_object();
    let labels = labels.into_iter().flatten();
    let pairs: Vec<String> = labels
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    pairs.join(",")
}

fn not_prepared(namespace: &str, found: &Resolved) -> CliError {
    CliError::failed(
        format!(
            "{}: no operator has prepared this workload, so it cannot be intercepted",
            found.label()
        ),
        format!(
            "an operator prepares it (open connections are drained once): {}",
            install_args::usual(namespace, &found.label())
        ),
    )
}

//! The one workload of a plain Envoy's directory, as a session sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use async_trait::async_trait;
use intercept_core::{Document, Intercept};
use intercept_manifest::cluster::intercept_name;
use intercept_manifest::envoy;
use intercept_manifest::facts::Port;
use intercept_tunnel::presence::{self, Presence};
use intercept_tunnel::relay_end::RelayEnd;
use serde::Serialize;
use serde_json::{Value, json};

use super::dir::{clear, now, outbound, relay, remove};
use crate::args::envoy_flag;
use crate::environment::Environment;
use crate::envoy::{Dir, EnvoyDirError, RenewError, USUAL_ENVOY};
use crate::error::{CliError, Result};
use crate::local_user;
use crate::model::{
    Check, Live, Named, NotRenewed, Placement, Plan, Replicas, Seen, Target, TargetPort, settled,
};
use crate::sandbox;
use crate::shell::quote;

/// The workload of this directory.
#[derive(Debug)]
pub struct PlainTarget<'d>(pub &'d Dir);

#[async_trait(?Send)]
impl Target for PlainTarget<'_> {
    fn name(&self) -> &str {
        &self.0.workload().name
    }

    fn owner(&self) -> String {
        local_user::name()
    }

    fn port(&self, wanted: Option<&str>) -> Result<TargetPort> {
        let port = choose_port(self.0, wanted)?;
        let by_name = || format!("http://{}:{}", self.name(), port.number);
        Ok(TargetPort {
            number: port.number,
            protocol: port.protocol,
            url: port.url.clone().unwrap_or_else(by_name),
        })
    }

    /// Refuses the ports of this machine on which the workload's Envoy, its admin interface or the relay listens.
    fn check_developer_port(&self, port: u16, service: Option<&str>) -> Result<()> {
        let workload = self.0.workload();
        let is = |address: SocketAddr| address.port() == port && is_here(address.ip());
        let who = if workload.ports.iter().any(|of| of.number == port) {
            "Envoy itself listens there"
        } else if workload.admin.is_some_and(is) {
            "Envoy's admin interface listens there"
        } else if is(workload.relay.data) || is(workload.relay.control) {
            "the relay listens there"
        } else if workload.relay.outbound.is_some_and(is) {
            "`injector outbound` listens there"
        } else {
            return Ok(());
        };
        let service = service.map_or_else(String::new, |service| format!(":{}", quote(service)));
        Err(CliError::usage(
            format!("--port {port}: {who}, expected the port of your own program"),
            format!(
                "injector intercept{} {} --port 3000{service}",
                envoy_flag(self.0.path()),
                quote(&workload.name)
            ),
        ))
    }

    /// Only containers have one.
    fn has_environment(&self) -> bool {
        false
    }

    async fn environment(&self, _port: u16) -> Result<Environment> {
        Err(CliError::usage(
            "--env-file: nothing is known of the environment of a program behind a plain Envoy, only of a workload of a cluster",
            "leave it out; for a cluster: unset INJECTOR_ENVOY",
        ))
    }

    async fn outbound(&self) -> Result<RelayEnd> {
        outbound(self.0)
    }

    fn names(&self) -> (Option<&str>, &str) {
        (None, "")
    }

    async fn place(&self, name: &str, port: u16) -> Result<Placement> {
        Ok(Placement {
            relay: relay(self.0),
            cluster: intercept_name(port, name),
            identity: None,
            replica: 0,
        })
    }

    async fn place_beside(&self, _: &str, _: u16, _: &BTreeSet<u16>) -> Option<Placement> {
        None
    }

    async fn presence(&self, address: &str) -> Presence {
        presence::ask(&relay(self.0), address).await
    }

    async fn document(&self) -> Result<Document> {
        Ok(self.0.document()?)
    }

    async fn configuration(&self) -> Result<Vec<u8>> {
        Ok(self.0.configuration()?.into_bytes())
    }

    async fn look(&self, name: &str) -> Result<Seen> {
        let (entry, limits) = match self.0.document() {
            Ok(mut document) => (document.intercepts.remove(name), Some(document.limits)),
            Err(EnvoyDirError::NotInstalled(_)) => (None, None),
            Err(error) => return Err(error.into()),
        };
        Ok(Seen {
            entry,
            refusal: None,
            limits,
            now: now(),
        })
    }

    async fn named(&self, document: &Document, name: String, _is_usual: bool) -> Result<Named> {
        Ok(Named {
            holder: document.intercepts.get(&name).cloned(),
            name,
        })
    }

    async fn rendered(&self, plan: &Plan, entry: &Intercept) -> Result<Value> {
        let workload = self.0.workload();
        let port = workload.port_number(entry.port);
        Ok(json!(Written {
            intercepts: BTreeMap::from([(&plan.name, entry)]),
            cluster: port.map(|port| envoy::cluster(workload, &plan.name, port)),
        }))
    }

    async fn add(&self, plan: &Plan, entry: &Intercept, check: &Check<'_>) -> Result<()> {
        self.0.add(&plan.name, entry, check)
    }

    async fn renew(&self, name: &str, address: &str, expires: u64) -> Result<(), NotRenewed> {
        let renewed = self.0.renew(name, address, expires);
        renewed.map_err(|error| match error {
            RenewError::Gone => NotRenewed::Removed,
            RenewError::Taken { owner } => NotRenewed::Taken(owner),
            RenewError::Dir(EnvoyDirError::NotInstalled(_)) => NotRenewed::Removed,
            RenewError::Dir(error) => NotRenewed::Failed(error.to_string()),
        })
    }

    fn gone(&self, name: &str) -> CliError {
        let path = self.0.path();
        if sandbox::has_made(path) {
            return CliError::failed(format!("{name}: the sandbox has ended"), "injector sandbox");
        }
        CliError::failed(
            format!(
                "{name}: {} is no longer prepared for intercepts",
                path.display()
            ),
            format!(
                "injector --envoy {} install --help",
                quote(&path.to_string_lossy())
            ),
        )
    }

    async fn remove(&self, name: &str, address: &str) -> Result<Option<Intercept>> {
        remove(self.0, name, address)
    }

    async fn wait_live(
        &self,
        name: &str,
        entry: &Intercept,
        timeout: Duration,
        _progress: &(dyn Fn(Replicas) + Sync),
    ) -> Result<Live> {
        let Intercept {
            address, cluster, ..
        } = entry;
        Ok(self.0.wait_live(name, address, cluster, timeout).await)
    }

    async fn wait_gone(&self, name: &str, _address: &str, timeout: Duration) -> Live {
        settled(self.0.wait_gone(name, timeout).await, USUAL_ENVOY).await
    }

    fn has_clusters(&self) -> bool {
        true
    }

    async fn clear(&self, plan: &Plan, _address: &str) -> Result<()> {
        clear(self.0, &plan.place.cluster)
    }

    fn undo_patience(&self) -> Duration {
        Duration::ZERO
    }

    fn look_every(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn now(&self) -> Result<u64> {
        Ok(now())
    }
}

/// What would be written: one entry and its cluster.
#[derive(Debug, Serialize)]
struct Written<'w> {
    intercepts: BTreeMap<&'w String, &'w Intercept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Value>,
}

/// Is this an address of this machine? Only such a one can be listened on.
fn is_here(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// The port that `--port` means: by name or number, else the only one.
fn choose_port<'d>(dir: &'d Dir, wanted: Option<&str>) -> Result<&'d Port> {
    let workload = dir.workload();
    let example = |port: &str| {
        let (flag, name) = (envoy_flag(dir.path()), quote(&workload.name));
        format!("injector intercept{flag} {name} --port 3000:{port}")
    };
    let list = || {
        let ports = workload.ports.iter();
        let ports: Vec<String> = ports
            .map(|port| format!("{} ({})", port.name, port.number))
            .collect();
        ports.join(", ")
    };
    match (wanted, workload.ports.as_slice()) {
        (Some(wanted), ports) => workload.port(wanted).ok_or_else(|| {
            let port = ports.first().map_or("http", |port| port.name.as_str());
            CliError::usage(
                format!(
                    "port {wanted}: {} has no such port, it has {}",
                    workload.name,
                    list()
                ),
                example(port),
            )
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(CliError::failed(
            format!("{}: no port speaks HTTP", workload.name),
            "injector install --help",
        )),
        (None, [first, ..]) => Err(CliError::usage(
            format!("{} has several ports: {}", workload.name, list()),
            example(&first.name),
        )),
    }
}

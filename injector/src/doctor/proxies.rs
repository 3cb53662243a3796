//! What the sidecars of a workload really have, asked of each one's Envoy: the gate's routes, the filter and its entries, the clusters; and what it refused.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::task::JoinSet;

use super::Check;
use super::seen::{Target, is_ours, text};
use crate::cluster::Cluster;
use crate::curl::quote;
use crate::manifest::istio::names;
use crate::mesh::prepared::workload_of;
use crate::mesh::{live, pods};

/// The listener through which everything comes in.
const LISTENER: &str = "/config_dump?resource=dynamic_listeners&name_regex=%5EvirtualInbound%24";

/// Ours, and Istio's own of the relays.
const CLUSTERS: &str = "/config_dump?resource=dynamic_active_clusters&name_regex=%5Eintercept(-app)?%5C%7C.*%7C%5Eoutbound%5C%7C808%5B01%5D%5C%7C%5C%7Cinjector-relay-.*";

/// What Envoy refused since it started. Istio's own selection of statistics lets these pass for listeners and clusters, not for filters.
const REJECTED: &str = "/stats?filter=update_rejected&format=json";

/// What one Envoy said.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    pub pod: String,
    pub filters: Value,
    pub listeners: Value,
    pub clusters: Value,
    pub rejected: Value,
}

/// What every sidecar of a workload should have.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// `NAMESPACE.NAME` of the WasmPlugin.
    pub plugin: String,
    /// Names and addresses of the entries.
    pub entries: BTreeSet<(String, String)>,
    /// The ports of the gate.
    pub ports: Vec<u16>,
    /// Names of clusters, with those of the relays.
    pub clusters: BTreeSet<String>,
}

/// Asks all of them, where the caller may.
pub async fn examine(cluster: &Cluster, target: &Target) -> Vec<Check> {
    let Some(expected) = Expected::of(target) else {
        return Vec::new();
    };
    let asked: Vec<String> = target
        .own_pods()
        .filter(|pod| pods::can_be_asked(pod))
        .map(|pod| pods::name_of(pod).to_owned())
        .collect();
    if asked.is_empty() {
        return vec![Check::unknown(
            "proxies",
            "proxies: not verified, no sidecar runs",
        )];
    }
    let mut asking = JoinSet::new();
    for pod in asked {
        let (cluster, namespace) = (cluster.clone(), target.namespace.clone());
        asking.spawn(async move {
            let told =
                tokio::time::timeout(live::LOOK_TIMEOUT, ask(&cluster, &namespace, &pod)).await;
            told.unwrap_or_else(|late| Err(late.into()))
                .map_err(|error| (pod, error))
        });
    }
    let mut checks = Vec::new();
    let (mut proxies, mut silent) = (Vec::new(), Vec::new());
    for told in asking.join_all().await {
        match told {
            Ok(proxy) => proxies.push(proxy),
            Err(error) => silent.push(error),
        }
    }
    proxies.sort_by(|one, other| one.pod.cmp(&other.pod));
    if let Some((pod, error)) = silent.first() {
        checks.push(Check::unknown(
            "proxies",
            format!("proxies: {} not verified; {pod}: {error}", silent.len()),
        ));
    }
    checks.extend(compare(&proxies, &expected, &target.namespace));
    checks
}

async fn ask(cluster: &Cluster, namespace: &str, pod: &str) -> anyhow::Result<Proxy> {
    let get = |path| live::get(cluster, namespace, pod, path);
    let (filters, listeners, clusters, rejected) = tokio::try_join!(
        get(live::FILTERS),
        get(LISTENER),
        get(CLUSTERS),
        get(REJECTED)
    )?;
    Ok(Proxy {
        pod: pod.to_owned(),
        filters,
        listeners,
        clusters,
        rejected,
    })
}

impl Expected {
    /// `None` where the workload is not prepared, or the caller may not see how.
    pub fn of(target: &Target) -> Option<Self> {
        let plugin = target.plugin.as_ref().ok()?.as_ref()?;
        let prepared = target.prepared()?;
        let entries = plugin
            .pointer("/spec/pluginConfig/intercepts")
            .and_then(Value::as_object);
        let entries = entries
            .into_iter()
            .flatten()
            .map(|(name, entry)| (name.clone(), text(entry, "/address").to_owned()));
        let own = (target.found.kind, target.found.name.as_str());
        let filters = target.filters.as_ref().ok()?.iter();
        let ours = filters.filter(|filter| is_ours(filter) && workload_of(filter) == Some(own));
        let patches = ours.filter_map(|filter| filter.pointer("/spec/configPatches")?.as_array());
        let added = patches
            .flatten()
            .filter(|patch| patch["applyTo"] == "CLUSTER")
            .map(|patch| text(patch, "/patch/value/name").to_owned());
        let mut clusters: BTreeSet<String> = added.collect();
        for port in &prepared.workload.ports {
            let relays = 0..prepared.mesh.relay_replicas;
            clusters.extend(relays.map(|relay| prepared.mesh.relay_cluster(relay, port.protocol)));
        }
        Some(Self {
            plugin: format!(
                "{}.{}",
                target.namespace,
                names::of_workload(&prepared.workload)
            ),
            entries: entries.collect(),
            ports: prepared
                .workload
                .ports
                .iter()
                .map(|port| port.number)
                .collect(),
            clusters,
        })
    }
}

/// One good word for all where there is nothing else to say.
pub fn compare(proxies: &[Proxy], expected: &Expected, namespace: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = proxies
        .iter()
        .flat_map(|proxy| proxy.faults(expected, namespace))
        .collect();
    if checks.is_empty() && !proxies.is_empty() {
        checks.push(Check::good(
            "proxies",
            format!(
                "{} proxies have the gate, the filter with its entries, and the clusters",
                proxies.len()
            ),
        ));
    }
    checks
}

impl Proxy {
    fn faults(&self, expected: &Expected, namespace: &str) -> Vec<Check> {
        let pod = &self.pod;
        let sync = "istioctl proxy-status; istiod pushes again when the pod restarts, or when anything of it changes";
        let log = format!(
            "kubectl -n {} logs {pod} -c istio-proxy | grep -i -e wasm -e rejected",
            quote(namespace)
        );
        let mut checks = Vec::new();
        let mut behind = |what: String| {
            checks.push(Check::bad("proxies", format!("pod {pod}: {what}"), sync));
        };
        match self.filter(&expected.plugin) {
            None => behind("its Envoy does not have the filter".to_owned()),
            Some(filter) if is_placeholder(filter) => checks.push(Check::bad(
                "module-fetched",
                format!("pod {pod}: its agent could not fetch the filter, so nothing is intercepted there (it put one in its place that lets every request pass)"),
                format!("{log}; once the module server is ready again: kubectl -n {} delete pod {pod}", quote(namespace)),
            )),
            Some(filter) => {
                if let Some(what) = differing(&entries(filter), &expected.entries) {
                    behind(format!("its Envoy has not taken the entries of now: {what}"));
                }
            }
        }
        let mut behind = |what: String| {
            checks.push(Check::bad("proxies", format!("pod {pod}: {what}"), sync));
        };
        let routes = routes(&self.listeners);
        for port in &expected.ports {
            match routes.iter().find(|(of, _)| of == port) {
                Some((_, Gate::InFront)) => {}
                Some((_, Gate::Behind(other))) => behind(format!(
                    "port {port}: the route `{other}` stands in front of the gate"
                )),
                Some((_, Gate::Missing)) | None => {
                    behind(format!("port {port}: its Envoy does not have the gate"))
                }
            }
        }
        let has: BTreeSet<&str> = crate::envoy::names(&self.clusters, "/cluster/name").collect();
        let missing = expected
            .clusters
            .iter()
            .filter(|name| !has.contains(name.as_str()));
        let (relays, ours): (Vec<&String>, Vec<&String>) =
            missing.partition(|name| name.starts_with("outbound|"));
        if let Some(relay) = relays.first() {
            checks.push(Check::bad(
                "relay-cluster",
                format!("pod {pod}: its Envoy has no cluster {relay}, so the in-cluster version answers"),
                "a Sidecar's egress hosts or an exportTo hides the relays, see above; or there are no such Services: injector doctor",
            ));
        }
        if let Some(name) = ours.first() {
            let count = rejected(&self.rejected, "cluster_manager.cds.update_rejected");
            let why = if count > 0 {
                format!(" (it rejected {count} pushes of clusters since it started)")
            } else {
                String::new()
            };
            checks.push(Check::bad(
                "proxies",
                format!("pod {pod}: its Envoy has no cluster {name}{why}"),
                sync,
            ));
        }
        if let Some(why) = refusal(&self.listeners).or_else(|| refusal(&self.filters)) {
            checks.push(Check::bad(
                "push-rejected",
                format!("pod {pod}: its Envoy rejected what istiod sent last: {why}"),
                log,
            ));
        }
        checks
    }

    fn filter(&self, plugin: &str) -> Option<&Value> {
        let configs = self.filters["configs"].as_array()?;
        let ours = configs
            .iter()
            .find(|config| live::plugin_of(text(config, "/ecds_filter/name")) == plugin)?;
        ours.pointer("/ecds_filter/typed_config")
    }
}

/// Istio's agent puts an RBAC filter where a module could not be fetched.
fn is_placeholder(filter: &Value) -> bool {
    text(filter, "/@type").ends_with(".rbac.v3.RBAC")
}

fn entries(filter: &Value) -> BTreeSet<(String, String)> {
    let document = crate::manifest::filter::document_text(filter);
    let document: Value = document
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let entries = document["intercepts"].as_object();
    let entries = entries.into_iter().flatten();
    entries
        .map(|(name, entry)| (name.clone(), text(entry, "/address").to_owned()))
        .collect()
}

fn differing(
    has: &BTreeSet<(String, String)>,
    wanted: &BTreeSet<(String, String)>,
) -> Option<String> {
    let lacks = wanted
        .difference(has)
        .map(|(name, _)| format!("{name} is missing"));
    let beyond = has
        .difference(wanted)
        .map(|(name, _)| format!("{name} is still there"));
    let all: Vec<String> = lacks.chain(beyond).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Where the gate stands among the routes of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Gate {
    InFront,
    Behind(String),
    Missing,
}

/// By port, from all route configurations of a dump, which stand inside its filter chains (`inbound|8080||`). Of several for one port the worst counts.
fn routes(dump: &Value) -> Vec<(u16, Gate)> {
    let mut found = Vec::new();
    collect_routes(dump, &mut found);
    found.sort_by_key(|(port, gate)| (*port, matches!(gate, Gate::InFront)));
    found.dedup_by_key(|(port, _)| *port);
    found
}

fn collect_routes(value: &Value, found: &mut Vec<(u16, Gate)>) {
    match value {
        Value::Object(fields) => {
            // What was refused is not in force.
            let parts = fields.iter().filter(|(key, _)| *key != "error_state");
            let port = fields
                .get("name")
                .and_then(Value::as_str)
                .and_then(inbound_port);
            if let (Some(port), Some(Value::Array(hosts))) = (port, fields.get("virtual_hosts")) {
                found.extend(hosts.iter().map(|host| (port, gate(host))));
            }
            parts.for_each(|(_, part)| collect_routes(part, found));
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect_routes(part, found)),
        _ => {}
    }
}

fn inbound_port(name: &str) -> Option<u16> {
    name.strip_prefix("inbound|")?
        .split('|')
        .next()?
        .parse()
        .ok()
}

fn gate(host: &Value) -> Gate {
    let is_ours = |route: &&Value| {
        let states = route
            .pointer("/match/filter_state")
            .and_then(Value::as_array);
        let mut states = states.into_iter().flatten();
        states.any(|state| text(state, "/key").starts_with("wasm.intercept"))
    };
    let routes = host["routes"].as_array();
    let routes: Vec<&Value> = routes.into_iter().flatten().collect();
    match routes.first() {
        Some(first) if is_ours(first) => Gate::InFront,
        Some(first) if routes.iter().any(is_ours) => Gate::Behind(text(first, "/name").to_owned()),
        _ => Gate::Missing,
    }
}

/// Envoy's own words about the last refused update of this kind, cleared by the next good one.
fn refusal(dump: &Value) -> Option<&str> {
    let configs = dump["configs"].as_array()?;
    configs
        .iter()
        .find_map(|config| config.pointer("/error_state/details")?.as_str())
}

/// A counter of what was refused.
pub fn rejected(stats: &Value, name: &str) -> u64 {
    let stats = stats["stats"].as_array();
    let mut stats = stats.into_iter().flatten();
    let found = stats.find(|stat| text(stat, "/name") == name);
    found.and_then(|stat| stat["value"].as_u64()).unwrap_or(0)
}

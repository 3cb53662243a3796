//! What one sidecar's Envoy said it has, against what it should have. Pure.

use std::collections::BTreeSet;

use intercept_kube::envoy_admin;
use serde_json::Value;

use super::Check;
use super::snapshot::text;
use crate::shell::quote;

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

/// One good word for all where there is nothing else to say.
pub fn compare(proxies: &[Proxy], expected: &Expected, namespace: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = proxies
        .iter()
        .flat_map(|proxy| proxy.faults(expected, namespace))
        .collect();
    if checks.is_empty() && !proxies.is_empty() {
        checks.push(Check::pass(
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
        let log = format!(
            "kubectl -n {} logs {} -c istio-proxy | grep -i -e wasm -e rejected",
            quote(namespace),
            self.pod
        );
        let mut checks = Vec::new();
        checks.extend(self.of_filter(expected, namespace, &log));
        checks.extend(self.of_gate(expected));
        checks.extend(self.of_clusters(expected));
        if let Some(why) = refusal(&self.listeners).or_else(|| refusal(&self.filters)) {
            checks.push(Check::fail(
                "push-rejected",
                format!(
                    "pod {}: its Envoy rejected what istiod sent last: {why}",
                    self.pod
                ),
                log,
            ));
        }
        checks
    }

    fn behind(&self, what: &str) -> Check {
        Check::fail(
            "proxies",
            format!("pod {}: {what}", self.pod),
            "istioctl proxy-status; istiod pushes again when the pod restarts, or when anything of it changes",
        )
    }

    fn of_filter(&self, expected: &Expected, namespace: &str, log: &str) -> Option<Check> {
        let pod = &self.pod;
        match self.filter(&expected.plugin) {
            None => Some(self.behind("its Envoy does not have the filter")),
            Some(filter) if is_placeholder(filter) => Some(Check::fail(
                "module-fetched",
                format!(
                    "pod {pod}: its agent could not fetch the filter, so nothing is intercepted there (it put one in its place that lets every request pass)"
                ),
                format!(
                    "{log}; once the module server is ready again: kubectl -n {} delete pod {pod}",
                    quote(namespace)
                ),
            )),
            Some(filter) => differing(&entries(filter), &expected.entries).map(|what| {
                self.behind(&format!(
                    "its Envoy has not taken the entries of now: {what}"
                ))
            }),
        }
    }

    fn of_gate(&self, expected: &Expected) -> Vec<Check> {
        let routes = routes(&self.listeners);
        let ports = expected.ports.iter();
        ports
            .filter_map(|port| match routes.iter().find(|(of, _)| of == port) {
                Some((_, Gate::InFront)) => None,
                Some((_, Gate::Behind(other))) => Some(self.behind(&format!(
                    "port {port}: the route `{other}` stands in front of the gate"
                ))),
                Some((_, Gate::Missing)) | None => {
                    Some(self.behind(&format!("port {port}: its Envoy does not have the gate")))
                }
            })
            .collect()
    }

    fn of_clusters(&self, expected: &Expected) -> Vec<Check> {
        let has: BTreeSet<&str> = crate::envoy::names(&self.clusters, "/cluster/name").collect();
        let is_missing = |name: &&String| !has.contains(name.as_str());
        let (relays, ours): (Vec<&String>, Vec<&String>) = expected
            .clusters
            .iter()
            .filter(is_missing)
            .partition(|name| name.starts_with("outbound|"));
        let relay = relays.first().map(|relay| {
            Check::fail(
                "relay-cluster",
                format!(
                    "pod {}: its Envoy has no cluster {relay}, so the in-cluster version answers",
                    self.pod
                ),
                "a Sidecar's egress hosts or an exportTo hides the relays, see above; or there are no such Services: injector doctor",
            )
        });
        let own = ours.first().map(|name| {
            let why = match rejected(&self.rejected, "cluster_manager.cds.update_rejected") {
                0 => String::new(),
                count => format!(" (it rejected {count} pushes of clusters since it started)"),
            };
            self.behind(&format!("its Envoy has no cluster {name}{why}"))
        });
        relay.into_iter().chain(own).collect()
    }

    fn filter(&self, plugin: &str) -> Option<&Value> {
        let configs = self.filters["configs"].as_array()?;
        let ours = configs
            .iter()
            .find(|config| envoy_admin::plugin_of(text(config, "/ecds_filter/name")) == plugin)?;
        ours.pointer("/ecds_filter/typed_config")
    }
}

/// Istio's agent puts an RBAC filter where a module could not be fetched.
fn is_placeholder(filter: &Value) -> bool {
    text(filter, "/@type").ends_with(".rbac.v3.RBAC")
}

fn entries(filter: &Value) -> BTreeSet<(String, String)> {
    let document = intercept_manifest::filter::document_text(filter);
    let (config, _) = intercept_core::parse(document.unwrap_or_default().as_bytes());
    let entries = config.intercepts.into_iter();
    entries.map(|(name, entry)| (name, entry.address)).collect()
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
fn rejected(stats: &Value, name: &str) -> u64 {
    let stats = stats["stats"].as_array();
    let mut stats = stats.into_iter().flatten();
    let found = stats.find(|stat| text(stat, "/name") == name);
    found.and_then(|stat| stat["value"].as_u64()).unwrap_or(0)
}

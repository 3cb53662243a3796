//! What others wrote into the mesh that can stand in the way: of requests to the relays, or of the gate.

use intercept_kube::prepare;
use intercept_manifest::istio::names;
use serde_json::Value;

use super::Check;
use super::snapshot::{Installation, Surroundings, Target, is_ours, labels, name_of};

pub fn checks(seen: &Surroundings, target: &Target, relay_namespace: &str) -> Vec<Check> {
    let mut checks = vec![egress(seen, target, relay_namespace)];
    match (&target.filters, &seen.root_filters) {
        (Ok(own), Ok(root)) => checks.extend(filters(own.iter().chain(root), target)),
        (Ok(own), Err(error)) => {
            checks.extend(filters(own.iter(), target));
            checks.push(Check::unanswered(
                "other-routes",
                "EnvoyFilters of the whole mesh",
                error,
            ));
        }
        (Err(error), _) => {
            checks.push(Check::unanswered("other-routes", "EnvoyFilters", error));
        }
    }
    checks
}

/// Is a relay's Service hidden from the workload's namespace, by its own annotation or by the mesh's default? (`exportTo`)
pub fn export(
    installation: &Installation,
    mesh: &Value,
    target: &Target,
    relay_namespace: &str,
) -> Check {
    const ID: &str = "relay-export";
    let services = match &installation.services {
        Ok(services) => services,
        Err(error) => return Check::unanswered(ID, "the relays' Services", error),
    };
    let by_default: Vec<&str> = mesh["defaultServiceExportTo"].as_array().map_or_else(
        || vec!["*"],
        |list| list.iter().filter_map(Value::as_str).collect(),
    );
    let is_hidden = |service: &&Value| {
        let own = service["metadata"]["annotations"][EXPORT_TO].as_str();
        let places: Vec<&str> = own.map_or_else(
            || by_default.clone(),
            |list| list.split(',').map(str::trim).collect(),
        );
        !places.iter().any(|place| {
            *place == "*"
                || *place == target.namespace
                || (*place == "." && target.namespace == relay_namespace)
        })
    };
    let mut relays = services.iter().filter(|service| is_relay(name_of(service)));
    match relays.find(is_hidden) {
        Some(service) => Check::fail(
            ID,
            format!(
                "Service {relay_namespace}/{}: it is not exported to {}, so every request is answered by the in-cluster version",
                name_of(service),
                target.namespace
            ),
            format!(
                "kubectl -n {relay_namespace} annotate --overwrite service {} {EXPORT_TO}='*'",
                name_of(service)
            ),
        ),
        None => Check::pass(
            ID,
            format!("the relays' Services are exported to {}", target.namespace),
        ),
    }
}

/// Annotation of a Service: the namespaces that see it.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// The Service of one relay, not the governing one of all.
fn is_relay(service: &str) -> bool {
    let number = service
        .strip_prefix(names::RELAY)
        .and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| number.parse::<u16>().is_ok())
}

/// Does a `Sidecar` resource hide the relays from the workload?
fn egress(seen: &Surroundings, target: &Target, relay_namespace: &str) -> Check {
    const ID: &str = "relay-egress";
    let sidecars = match &target.sidecars {
        Ok(sidecars) => sidecars,
        Err(error) => return Check::unanswered(ID, "Sidecar resources", error),
    };
    let own = prepare::sidecar_resource(&target.labels(), sidecars);
    let root = seen.root_sidecars.iter().flatten();
    let root = root
        .into_iter()
        .find(|sidecar| labels(sidecar.pointer("/spec/workloadSelector/labels")).is_empty());
    let Some(sidecar) = own.or(root) else {
        return match &seen.root_sidecars {
            Ok(_) => Check::pass(ID, "no Sidecar resource hides the relays"),
            Err(error) => Check::unanswered(ID, "Sidecar resources of the whole mesh", error),
        };
    };
    let domain = target.prepared().map_or_else(
        || "cluster.local".to_owned(),
        |prepared| prepared.mesh.cluster_domain,
    );
    let host = format!("{}.{relay_namespace}.svc.{domain}", names::relay_replica(0));
    match shows(sidecar, &target.namespace, relay_namespace, &host) {
        true => Check::pass(ID, format!("Sidecar {} shows the relays", name_of(sidecar))),
        false => Check::fail(
            ID,
            format!(
                "Sidecar {}: it hides the relays, so every request is answered by the in-cluster version",
                name_of(sidecar)
            ),
            format!("add to its egress hosts: \"{relay_namespace}/*\""),
        ),
    }
}

/// `NAMESPACE/HOST`, each possibly with a wildcard; without any egress, everything is shown.
pub(super) fn shows(sidecar: &Value, own: &str, namespace: &str, host: &str) -> bool {
    let egress = sidecar.pointer("/spec/egress").and_then(Value::as_array);
    let Some(egress) = egress.filter(|egress| !egress.is_empty()) else {
        return true;
    };
    let hosts = egress
        .iter()
        .filter_map(|listener| listener["hosts"].as_array())
        .flatten();
    let mut hosts = hosts.filter_map(Value::as_str);
    hosts.any(|pattern| {
        let (in_namespace, name) = pattern.split_once('/').unwrap_or(("*", pattern));
        let is_there = match in_namespace {
            "*" => true,
            "." => own == namespace,
            named => named == namespace,
        };
        let is_named = match name.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => name == host,
        };
        is_there && is_named
    })
}

/// Routes that others put in front of all, or take away; filters that others put into the chain.
fn filters<'v>(all: impl Iterator<Item = &'v Value>, target: &Target) -> Vec<Check> {
    const ID: &str = "other-routes";
    let own = target.labels();
    let reaches = |filter: &&Value| {
        let selector = labels(filter.pointer("/spec/workloadSelector/labels"));
        !is_ours(filter) && prepare::contains(&own, &selector) && changes(filter).is_some()
    };
    let found: Vec<Check> = all
        .filter(reaches)
        .map(|filter| {
            let what = changes(filter).unwrap_or_default();
            Check::warn(
                ID,
                format!("EnvoyFilter {}: it changes inbound {what} of these pods as well", name_of(filter)),
                match what {
                    "routes" => "a route that it puts in front of ours takes the requests; give it a priority below 1000",
                    _ => "a filter that answers by itself, or that chooses the route, takes the requests",
                },
            )
        })
        .collect();
    match found.is_empty() {
        true => vec![Check::pass(
            ID,
            "no other EnvoyFilter changes the inbound routes and filters",
        )],
        false => found,
    }
}

/// `routes` or `filters`, where it changes those of requests that come in.
fn changes(filter: &Value) -> Option<&'static str> {
    let patches = filter
        .pointer("/spec/configPatches")
        .and_then(Value::as_array);
    let inbound = patches.into_iter().flatten().filter(|patch| {
        let context = patch
            .pointer("/match/context")
            .and_then(Value::as_str)
            .unwrap_or("ANY");
        matches!(context, "ANY" | "SIDECAR_INBOUND")
    });
    let found = inbound.filter_map(|patch| match patch["applyTo"].as_str()? {
        "HTTP_ROUTE" | "VIRTUAL_HOST" | "ROUTE_CONFIGURATION" => Some("routes"),
        "HTTP_FILTER" => Some("filters"),
        _ => None,
    });
    found.max()
}

//! What a plain Envoy is given: the two files that it watches, and the pieces that an operator adds once to its bootstrap.

use std::collections::HashSet;
use std::path::Path;

use intercept_core::Document;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::facts::{Port, Protocol, Workload};
use super::gate::Gate;
use super::yaml::Piece;
use super::{cluster, filter};

pub mod bootstrap;

/// The filter with all intercepts (ECDS).
pub const FILTER_FILE: &str = "filter.json";

/// The intercepts' clusters (CDS).
pub const CLUSTERS_FILE: &str = "clusters.json";

/// The cluster that reaches the relay with this protocol.
pub fn relay_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "intercept-relay|http",
        Protocol::Http2 | Protocol::Grpc => "intercept-relay|http2",
        Protocol::Auto => "intercept-relay|auto",
    }
}

/// The cluster of one intercept on one port.
pub fn cluster(_workload: &Workload, name: &str, port: &Port) -> Value {
    cluster::aggregate(
        &cluster::intercept_name(port.number, name),
        relay_name(port.protocol),
        &cluster::app_name(port.number),
    )
}

/// [`CLUSTERS_FILE`]. An entry that names a cluster other than its own gets none, nor does one on a port that is not there any more.
pub fn clusters_file(workload: &Workload, document: &Document, version: u64) -> Value {
    let clusters = document
        .intercepts
        .iter()
        .filter(|(name, intercept)| {
            intercept.cluster == cluster::intercept_name(intercept.port, name)
        })
        .filter_map(|(name, intercept)| {
            Some(cluster(
                workload,
                name,
                workload.port_number(intercept.port)?,
            ))
        });
    discovery(
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        clusters,
        version,
    )
}

/// The names of the clusters in a [`CLUSTERS_FILE`] that no entry of this document needs.
pub fn orphans(workload: &Workload, document: &Document, file: &Value) -> Vec<String> {
    let needed = clusters_file(workload, document, 0);
    let needed: HashSet<&str> = clusters(&needed).filter_map(cluster_name).collect();
    let names = clusters(file).filter_map(cluster_name);
    let orphans = names.filter(|name| !needed.contains(name));
    orphans.map(str::to_owned).collect()
}

fn clusters(file: &Value) -> impl Iterator<Item = &Value> {
    file["resources"].as_array().into_iter().flatten()
}

/// Puts behind the clusters of one [`CLUSTERS_FILE`] those that only an earlier one has, except which `may_go` by their names.
pub fn keep_clusters(file: &mut Value, earlier: &Value, may_go: impl Fn(&str) -> bool) {
    let Some(Value::Array(clusters)) = file.get_mut("resources") else {
        return;
    };
    let known: HashSet<&str> = clusters.iter().filter_map(cluster_name).collect();
    let kept = self::clusters(earlier).filter(|cluster| {
        cluster_name(cluster).is_some_and(|name| !known.contains(name) && !may_go(name))
    });
    let kept: Vec<Value> = kept.cloned().collect();
    clusters.extend(kept);
}

fn cluster_name(cluster: &Value) -> Option<&str> {
    cluster["name"].as_str()
}

/// [`FILTER_FILE`] with this document.
pub fn filter_file(
    workload: &Workload,
    document: &impl Serialize,
    version: u64,
) -> Result<Value, serde_json::Error> {
    let wasm = filter::wasm(&workload.module, document)?;
    Ok(discovery(
        "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        [json!({"name": filter::NAME, "typed_config": wasm})],
        version,
    ))
}

/// The filter's configuration inside [`FILTER_FILE`].
pub fn filter_in(file: &Value) -> Option<&Value> {
    file.pointer("/resources/0/typed_config")
}

/// The version of a discovery file.
pub fn version_in(file: &Value) -> Option<u64> {
    file.get("version_info")?.as_str()?.parse().ok()
}

fn discovery(type_url: &str, resources: impl IntoIterator<Item = Value>, version: u64) -> Value {
    let typed = |resource| {
        let mut typed = Map::from_iter([("@type".to_owned(), json!(type_url))]);
        if let Value::Object(members) = resource {
            typed.extend(members);
        }
        Value::Object(typed)
    };
    let resources: Vec<Value> = resources.into_iter().map(typed).collect();
    json!({"version_info": version.to_string(), "type_url": type_url, "resources": resources})
}

/// What stands in the bootstrap for all ports together: one fallback cluster per port, and the relay once per protocol in use.
pub fn static_clusters(workload: &Workload) -> Vec<Value> {
    let mut protocols: Vec<(&str, Protocol)> = workload
        .ports
        .iter()
        .map(|port| (relay_name(port.protocol), port.protocol))
        .collect();
    protocols.sort_unstable();
    protocols.dedup_by_key(|(name, _)| *name);
    let apps = workload
        .ports
        .iter()
        .map(|port| cluster::app(&cluster::app_name(port.number), port.app, port.protocol));
    let relays = protocols
        .into_iter()
        .map(|(name, protocol)| cluster::relay(name, workload.relay.data, protocol));
    apps.chain(relays).collect()
}

/// Envoy watches [`CLUSTERS_FILE`] for the intercepts' clusters; the static ones stay as they are.
fn cds_config(dir: &Path) -> Value {
    json!({"cds_config": {
        "path_config_source": {"path": dir.join(CLUSTERS_FILE)},
        "resource_api_version": "V3",
    }})
}

fn node(workload: &Workload) -> Value {
    json!({"id": workload.name, "cluster": workload.name})
}

/// The pieces that an operator adds once to a bootstrap. `dir` is absolute; `default_cluster` says where a port's unmatched requests go.
pub fn pieces(
    workload: &Workload,
    dir: &Path,
    default_cluster: &dyn Fn(&Port) -> String,
) -> Vec<Piece> {
    let mut pieces = vec![filter_piece(workload, dir)];
    for port in &workload.ports {
        pieces.push(gate_piece(port, &default_cluster(port)));
    }
    pieces.push(Piece {
        comment: "The in-cluster version as a fallback, and the relay. Envoy's default circuit breakers allow three retries at once, and every fallback is a retry: hence the thresholds.\n\
                  By the metadata of its endpoint, the intercepts' clusters know the in-cluster version. A connection to the relay is reset when it is closed (SO_LINGER): its end would wait\n\
                  behind what the relay does not read, and a client that left would stay. Leave that out where Envoy does not run on Linux.\n\
                  Add them to the clusters you have; they never change."
            .to_owned(),
        value: json!({"static_resources": {"clusters": static_clusters(workload)}}),
    });
    pieces.push(Piece {
        comment: format!(
            "One cluster per intercept, in a file that Envoy watches ({CLUSTERS_FILE}). Your own static clusters stay; Envoy asks for `node` as soon as there is a `cds_config`: keep yours if you have one.\n\
             Envoy has room for one `cds_config`. If yours is taken, leave this piece out and let your own control plane serve the resources of that file:\n\
             until a cluster is there, requests of its intercept go to the in-cluster version."
        ),
        value: json!({"node": node(workload), "dynamic_resources": cds_config(dir)}),
    });
    pieces
}

fn filter_piece(workload: &Workload, dir: &Path) -> Piece {
    let ports: Vec<String> = workload
        .ports
        .iter()
        .map(|port| format!("{} ({})", port.number, port.name))
        .collect();
    Piece {
        comment: format!(
            "What an operator adds once to Envoy's bootstrap, so that developers can intercept {}. Nothing is intercepted by it alone.\n\
             \n\
             The filter: last before the router in `http_filters` of the listener on port {}, so that what you deny stays denied.\n\
             Its configuration is a file that Envoy watches ({FILTER_FILE}): a change reaches all workers within milliseconds and closes no connection.\n\
             WebSockets need `upgrade_configs: [{{upgrade_type: websocket}}]` beside `http_filters`, intercepted or not.",
            workload.name,
            ports.join(", ")
        ),
        value: json!({"http_filters": [filter::http_filter(&dir.join(FILTER_FILE))]}),
    }
}

fn gate_piece(port: &Port, default_cluster: &str) -> Piece {
    Piece {
        comment: format!(
            "The gate of port {} ({}): in front of all routes of every virtual host there. Only what the filter matched passes it, whatever headers a client sends.\n\
             A request that the developer's side certainly did not take is sent to the in-cluster version, once; a safe one (first route) also when that side broke under way.",
            port.number, port.name
        ),
        value: json!({"routes": Gate { default_cluster, app: port.app, operation: None }.routes()}),
    }
}

#[cfg(test)]
mod tests;

//! The same pieces for a plain Envoy: the two files that it watches.

use intercept_core::Document;
use serde_json::{Value, json};

use super::cluster;
use super::facts::{Port, Protocol, Workload};
use super::filter;

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
        &cluster::intercept_name(name),
        relay_name(port.protocol),
        &cluster::app_name(port.number),
    )
}

/// `clusters.json`: the clusters of all intercepts (CDS). An entry that names a cluster other than its own gets none, nor does one on a port that is not there any more.
pub fn clusters_file(workload: &Workload, document: &Document, version: u64) -> Value {
    let clusters = document
        .intercepts
        .iter()
        .filter(|(name, intercept)| intercept.cluster == cluster::intercept_name(name))
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

/// `filter.json`: the filter with all intercepts (ECDS).
pub fn filter_file(
    workload: &Workload,
    document: &Document,
    version: u64,
) -> Result<Value, serde_json::Error> {
    let wasm = filter::wasm(&workload.module, document)?;
    Ok(discovery(
        "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        [json!({"name": filter::NAME, "typed_config": wasm})],
        version,
    ))
}

/// The filter's configuration inside `filter.json`.
pub fn filter_in(file: &Value) -> Option<&Value> {
    file.pointer("/resources/0/typed_config")
}

/// The version of a discovery file.
pub fn version_in(file: &Value) -> Option<u64> {
    file.get("version_info")?.as_str()?.parse().ok()
}

fn discovery(type_url: &str, resources: impl IntoIterator<Item = Value>, version: u64) -> Value {
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|mut resource| {
            resource["@type"] = json!(type_url);
            resource
        })
        .collect();
    json!({"version_info": version.to_string(), "type_url": type_url, "resources": resources})
}

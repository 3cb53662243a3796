//! What a plain Envoy is given, as an operator and Envoy read it.

use std::net::SocketAddr;
use std::path::Path;

use intercept_core::{Document, Intercept, Limits, MatchHeader, SCHEMA_VERSION};
use serde_json::json;

use super::bootstrap::{BootstrapOptions, bootstrap};
use super::*;
use crate::manifest::extensions;
use crate::manifest::facts::{Module, Relay, WORKLOAD_VERSION};
use crate::manifest::yaml;

fn workload() -> Workload {
    let port = |name: &str, number: u16, protocol| Port {
        name: name.to_owned(),
        number,
        app: SocketAddr::from(([127, 0, 0, 1], number + 10_000)),
        protocol,
        url: None,
    };
    Workload {
        version: WORKLOAD_VERSION,
        name: "orders".to_owned(),
        ports: vec![
            port("http", 8080, Protocol::Http),
            port("grpc", 8090, Protocol::Grpc),
        ],
        relay: Relay {
            data: SocketAddr::from(([10, 0, 0, 7], 8080)),
            control: SocketAddr::from(([10, 0, 0, 7], 7070)),
            outbound: None,
        },
        module: Module {
            path: "/etc/envoy/filter.wasm".into(),
            sha256: "0".repeat(64),
        },
        limits: Limits::default(),
        admin: Some(SocketAddr::from(([127, 0, 0, 1], 9901))),
    }
}

fn intercept(cluster: &str, port: u16) -> Intercept {
    Intercept {
        port,
        cluster: cluster.to_owned(),
        address: "0123456789abcdef0123456789abcdef".to_owned(),
        owner: "bob".to_owned(),
        created: 1_795_347_600,
        headers: vec![MatchHeader {
            name: "Coder".to_owned(),
            value: "Bob".to_owned(),
        }],
        baggage: Vec::new(),
        path: None,
        expires: 1_795_351_200,
    }
}

fn document(intercepts: &[(&str, Intercept)]) -> Document {
    Document {
        version: SCHEMA_VERSION,
        limits: Limits::default(),
        intercepts: intercepts
            .iter()
            .map(|(name, intercept)| ((*name).to_owned(), intercept.clone()))
            .collect(),
    }
}

fn names(resources: &Value) -> Vec<&str> {
    resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect()
}

#[test]
fn an_operator_reads_every_piece_with_its_reason() {
    let pieces = pieces(&workload(), Path::new("/etc/envoy/intercept"), &|port| {
        format!("orders-{}", port.name)
    });
    insta::assert_snapshot!(yaml::documents(&pieces).unwrap());
}

#[test]
fn a_complete_bootstrap_has_a_listener_per_port() {
    let options = BootstrapOptions {
        access_log: true,
        ..BootstrapOptions::default()
    };
    let bootstrap = bootstrap(&workload(), Path::new("/etc/envoy/intercept"), &options);
    insta::assert_snapshot!(serde_json::to_string_pretty(&bootstrap).unwrap());
}

#[test]
fn without_the_filter_nothing_of_ours_sees_a_request() {
    let options = BootstrapOptions {
        without_filter: true,
        ..BootstrapOptions::default()
    };
    let text = bootstrap(&workload(), Path::new("/d"), &options)["static_resources"]["listeners"]
        .to_string();
    assert!(!text.contains("wasm") && !text.contains("lua"), "{text}");
    assert!(text.contains("intercept-app|8080"), "{text}");
}

#[test]
fn the_files_that_envoy_watches() {
    let document = document(&[("orders-bob", intercept("intercept|8080|orders-bob", 8080))]);
    insta::assert_snapshot!(
        "filter.json",
        serde_json::to_string_pretty(&filter_file(&workload(), &document, 7).unwrap()).unwrap()
    );
    insta::assert_snapshot!(
        "clusters.json",
        serde_json::to_string_pretty(&clusters_file(&workload(), &document, 7)).unwrap()
    );
}

#[test]
fn what_the_filter_reads_is_what_was_written() {
    let document = document(&[("orders-bob", intercept("intercept|8080|orders-bob", 8080))]);
    let file = filter_file(&workload(), &document, 1).unwrap();
    let text = filter::document_text(filter_in(&file).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Document>(text).unwrap(), document);
}

#[test]
fn an_intercept_takes_the_relay_cluster_of_its_ports_protocol() {
    let document = document(&[
        ("a", intercept("intercept|8080|a", 8080)),
        ("b", intercept("intercept|8090|b", 8090)),
    ]);
    let file = clusters_file(&workload(), &document, 1);
    let members: Vec<&Value> = file["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cluster| &cluster["cluster_type"]["typed_config"]["clusters"])
        .collect();
    assert_eq!(
        members,
        [
            &json!(["intercept-relay|http", "intercept-app|8080"]),
            &json!(["intercept-relay|http2", "intercept-app|8090"]),
        ]
    );
}

#[test]
fn only_an_intercepts_own_cluster_is_made() {
    let document = document(&[
        ("mine", intercept("intercept|8080|mine", 8080)),
        ("shared", intercept("intercept|relay-0|8080", 8080)),
        ("elsewhere", intercept("intercept|81|elsewhere", 81)),
    ]);
    assert_eq!(
        names(&clusters_file(&workload(), &document, 1)),
        ["intercept|8080|mine"]
    );
}

#[test]
fn every_cluster_of_ours_has_open_circuit_breakers() {
    let document = document(&[("a", intercept("intercept|8080|a", 8080))]);
    let file = clusters_file(&workload(), &document, 1);
    let clusters = static_clusters(&workload());
    let all: Vec<&Value> = clusters
        .iter()
        .chain(file["resources"].as_array().unwrap())
        .collect();
    assert_eq!(all.len(), 5);
    for cluster in all {
        let thresholds = &cluster["circuit_breakers"]["thresholds"][0];
        for limit in [
            "max_connections",
            "max_pending_requests",
            "max_requests",
            "max_retries",
        ] {
            assert_eq!(thresholds[limit], json!(u32::MAX), "{cluster}");
        }
    }
}

#[test]
fn istios_proxy_links_every_extension_that_is_rendered() {
    let document = document(&[("a", intercept("intercept|8080|a", 8080))]);
    let dir = Path::new("/d");
    let options = BootstrapOptions {
        access_log: true,
        ..BootstrapOptions::default()
    };
    let rendered = json!([
        bootstrap(&workload(), dir, &options),
        filter_file(&workload(), &document, 1).unwrap(),
        clusters_file(&workload(), &document, 1),
        pieces(&workload(), dir, &|_| "app".to_owned())
            .iter()
            .map(|piece| piece.value.clone())
            .collect::<Vec<_>>(),
    ]);
    let (named, unlinked) = extensions::check(&rendered);
    assert_eq!(unlinked, Vec::<String>::new());
    assert_eq!(named.len(), 12, "{named:?}");
}

#[test]
fn a_composite_cluster_would_be_refused_by_istios_proxy() {
    let composite = json!({"name": "a", "cluster_type": {
        "name": "envoy.clusters.composite",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.clusters.composite.v3.ClusterConfig"},
    }});
    let (_, unlinked) = extensions::check(&composite);
    assert_eq!(
        unlinked,
        [
            "envoy.clusters.composite",
            "envoy.extensions.clusters.composite.v3.ClusterConfig"
        ]
    );
}

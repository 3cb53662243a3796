//! What the mesh is given, as a reviewer, the API server and Envoy read it. The whole of it stands in `istio/`; here are the rules that it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use intercept_core::Intercept;
use serde_json::{Value, json};

use super::install::{ClusterInstall, cluster_objects, outbound_objects};
use super::*;
use crate::extensions;
use crate::facts::Protocol;

mod outbound;
mod policies;
mod refusals;

fn mesh() -> Mesh {
    example::install().mesh
}

fn port(number: u16, protocol: Protocol) -> Port {
    Port {
        number,
        protocol,
        app: ([127, 0, 0, 1], number).into(),
        services: Vec::new(),
    }
}

/// Four ports, one of each protocol.
fn busy() -> Workload {
    Workload {
        ports: vec![
            port(8080, Protocol::Http),
            port(8090, Protocol::Http2),
            port(9090, Protocol::Grpc),
            port(7000, Protocol::Auto),
        ],
        ..example::workload()
    }
}

/// What the controller writes for the example's intercept with this entry.
fn intercept(entry: &Intercept) -> Vec<Object> {
    let prepared = workload_objects(&mesh(), &example::workload(), &example::plugin()).unwrap();
    let plugin = Object::of_kind(&prepared, "WasmPlugin").unwrap();
    let plugin = preparation::read(plugin.value()).unwrap().unwrap();
    intercept_objects(&plugin, &example::intercept(), entry)
        .unwrap()
        .split_off(1)
}

fn installed(install: &ClusterInstall) -> Vec<Object> {
    cluster_objects(install).unwrap()
}

/// Everything of the example; last, the text of intercepts, which is part of an object.
fn all() -> Vec<Object> {
    let mut objects = installed(&example::install());
    objects.extend(workload_objects(&mesh(), &example::workload(), &example::plugin()).unwrap());
    objects.extend(outbound_objects(&example::install(), &example::outbound()).unwrap());
    objects.extend(example::of_intercept().unwrap());
    objects
}

fn of_kind<'a>(objects: &'a [Object], kind: &str) -> Vec<&'a Object> {
    let found: Vec<&Object> = objects
        .iter()
        .filter(|object| object.kind() == kind)
        .collect();
    assert!(!found.is_empty(), "no {kind}");
    found
}

fn patches(object: &Object) -> &Vec<Value> {
    object.value()["spec"]["configPatches"].as_array().unwrap()
}

/// The clusters that an EnvoyFilter adds, by name.
fn clusters(object: &Object) -> BTreeMap<&str, &Value> {
    patches(object)
        .iter()
        .filter(|patch| patch["applyTo"] == "CLUSTER" && patch["patch"]["operation"] == "ADD")
        .map(|patch| &patch["patch"]["value"])
        .map(|cluster| (cluster["name"].as_str().unwrap(), cluster))
        .collect()
}

fn gate(workload: &Workload) -> Object {
    let objects = workload_objects(&mesh(), workload, &example::plugin()).unwrap();
    of_kind(&objects, "EnvoyFilter")[0].clone()
}

#[test]
fn directory_istio_is_rendered() {
    const HINT: &str = "run INJECTOR_RENDER=1 cargo test -p intercept-manifest directory_istio, and look at the difference";
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../istio");
    let rendered: BTreeMap<String, String> = example::files()
        .unwrap()
        .into_iter()
        .map(|file| (file.name, file.text))
        .collect();
    if std::env::var_os("INJECTOR_RENDER").is_some() {
        let _ = std::fs::remove_dir_all(&directory);
        for (name, text) in &rendered {
            let file = directory.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
    }
    let list = |folder: &Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}; {HINT}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let files = list(&directory)
        .into_iter()
        .flat_map(|folder| list(&folder));
    let present: BTreeSet<String> = files
        .map(|file| {
            let file = file.strip_prefix(&directory).unwrap();
            file.to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(present, rendered.keys().cloned().collect(), "{HINT}");
    for (name, text) in &rendered {
        let written = std::fs::read_to_string(directory.join(name)).unwrap();
        assert!(
            written == *text,
            "istio/{name} is not what the code renders; {HINT}"
        );
    }
}

#[test]
fn reviewed_yaml_is_what_is_applied() {
    for object in all() {
        let text = object.yaml().unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(&read, object.value(), "{text}");
    }
}

#[test]
fn every_comment_stands_above_a_field() {
    let mut seen = 0;
    for object in all() {
        for (pointer, text) in object.notes() {
            assert!(
                object.value().pointer(pointer).is_some(),
                "{} {}: {pointer}: {text}",
                object.kind(),
                object.name()
            );
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn objects_have_legal_unique_names_and_labels() {
    let mut names = BTreeSet::new();
    let objects = all();
    let (patch, applied) = objects.split_last().unwrap();
    assert_eq!(
        patch.value()["metadata"]["labels"],
        Value::Null,
        "an intercept changes no label of the plugin"
    );
    // A developer's own object is not ours to remove by its label.
    for object in applied.iter().filter(|object| object.kind() != "Intercept") {
        names::check_name("object", object.name()).unwrap();
        assert!(
            names.insert((object.kind(), object.namespace(), object.name())),
            "{} {}",
            object.kind(),
            object.name()
        );
        assert_eq!(
            object.value()["metadata"]["labels"][names::MANAGED_BY],
            names::MANAGER,
            "{}",
            object.name()
        );
    }
}

#[test]
fn no_object_in_root_namespace() {
    assert!(
        all()
            .iter()
            .all(|object| object.namespace() != Some("istio-system"))
    );
}

#[test]
fn service_ports_have_name_and_protocol() {
    let objects = all();
    let mut seen = 0;
    for service in of_kind(&objects, "Service") {
        for port in service.value()["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
        {
            assert!(
                port["name"].is_string() && port["appProtocol"].is_string(),
                "{port}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 7);
}

#[test]
fn pods_are_restricted() {
    let objects = all();
    let mut pods = of_kind(&objects, "StatefulSet");
    pods.extend(of_kind(&objects, "Deployment"));
    assert_eq!(pods.len(), 4);
    for pod in pods {
        let spec = &pod.value()["spec"]["template"]["spec"];
        let talks_to_api_server = pod.name() == names::CONTROLLER;
        assert_eq!(
            spec["automountServiceAccountToken"],
            json!(talks_to_api_server)
        );
        let container = &spec["containers"][0];
        assert!(container["resources"]["requests"]["memory"].is_string());
        let security = &container["securityContext"];
        assert_eq!(security["runAsNonRoot"], json!(true));
        assert_eq!(security["readOnlyRootFilesystem"], json!(true));
        assert_eq!(security["allowPrivilegeEscalation"], json!(false));
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(
            security["seccompProfile"],
            json!({"type": "RuntimeDefault"})
        );
    }
}

#[test]
fn istio_links_every_rendered_extension() {
    let mut objects = all();
    objects.push(gate(&busy()));
    let values: Vec<&Value> = of_kind(&objects, "EnvoyFilter")
        .into_iter()
        .flat_map(patches)
        .map(|patch| &patch["patch"]["value"])
        .collect();
    let (named, unlinked) = extensions::check(&json!(values));
    assert_eq!(unlinked, Vec::<String>::new());
    assert_eq!(named.len(), 7, "{named:?}");
}

#[test]
fn route_for_safe_methods_is_first() {
    let gate = gate(&busy());
    for port in [8080, 8090, 9090, 7000] {
        let inserted: Vec<&str> = patches(&gate)
            .iter()
            .filter(|patch| patch["match"]["routeConfiguration"]["portNumber"] == json!(port))
            .inspect(|patch| assert_eq!(patch["patch"]["operation"], "INSERT_FIRST"))
            .map(|patch| patch["patch"]["value"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            inserted,
            ["intercept", "intercept-safe"],
            "each one is put before those that are there"
        );
    }
}

#[test]
fn relay_and_fallback_follow_port_protocol() {
    let gate = gate(&busy());
    let clusters = clusters(&gate);
    assert_eq!(clusters.len(), 4);
    let options = |port: u16| {
        clusters[format!("intercept-app|{port}").as_str()]
            ["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].clone()
    };
    for (port, relay_port, protocol) in [
        (8080, 8080, None),
        (8090, 8081, Some("explicit_http_config")),
        (9090, 8081, Some("explicit_http_config")),
        (7000, 8080, Some("use_downstream_protocol_config")),
    ] {
        for replica in 0..2 {
            let workload = busy();
            let own = workload
                .ports
                .iter()
                .find(|own| own.number == port)
                .unwrap();
            let aggregate = super::gate::aggregate(&mesh(), "shop", "x", own, replica);
            let relay = format!(
                "outbound|{relay_port}||injector-relay-{replica}.injector-system.svc.cluster.local"
            );
            assert_eq!(
                aggregate["cluster_type"]["typed_config"]["clusters"],
                json!([relay, format!("intercept-app|{port}")])
            );
        }
        let options = options(port);
        match protocol {
            Some(protocol) => assert!(options[protocol].is_object(), "{port}: {options}"),
            None => assert_eq!(
                options,
                Value::Null,
                "an HTTP/1.1 program must not be spoken to in what the client speaks"
            ),
        }
    }
}

#[test]
fn clusters_have_open_circuit_breakers() {
    let gate = gate(&busy());
    let own = intercept(&example::entry());
    let clusters: Vec<Value> = [&gate, &own[0]]
        .into_iter()
        .flat_map(clusters)
        .map(|(_, cluster)| cluster["circuit_breakers"]["thresholds"][0]["max_retries"].clone())
        .collect();
    assert_eq!(clusters, vec![json!(u32::MAX); 5]);
}

#[test]
fn fallback_source_bypasses_the_sidecar() {
    let mut workload = busy();
    workload.ports[1].app = "[::1]:8090".parse().unwrap();
    let gate = gate(&workload);
    let clusters = clusters(&gate);
    let source =
        |name: &str| clusters[name]["upstream_bind_config"]["source_address"]["address"].clone();
    assert_eq!(source("intercept-app|8080"), "127.0.0.6");
    assert_eq!(source("intercept-app|8090"), "::6");
}

#[test]
fn fallback_follows_sidecar_resource() {
    let mut workload = example::workload();
    workload.ports[0].app = ([127, 0, 0, 1], 9999).into();
    let gate = gate(&workload);
    let app = clusters(&gate)["intercept-app|8080"];
    assert_eq!(
        app["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"],
        json!({"address": "127.0.0.1", "port_value": 9999})
    );
}

#[test]
fn metrics_and_spans_keep_service_name() {
    let gate = gate(&example::workload());
    assert_eq!(
        patches(&gate)[0]["patch"]["value"]["decorator"],
        json!({"operation": "orders.shop.svc.cluster.local:80/*"})
    );
    let own = intercept(&example::entry());
    let services = json!({"filter_metadata": {"istio": {"services": [
        {"host": "orders.shop.svc.cluster.local", "name": "orders", "namespace": "shop"},
    ]}}});
    let clusters: Vec<&Value> = clusters(&gate)
        .into_values()
        .chain(clusters(&own[0]).into_values())
        .collect();
    assert_eq!(clusters.len(), 2);
    assert!(
        clusters
            .iter()
            .all(|cluster| cluster["metadata"] == services)
    );
}

#[test]
fn port_without_service_has_a_gate() {
    let mut workload = example::workload();
    workload.ports[0].services.clear();
    let gate = gate(&workload);
    assert_eq!(
        patches(&gate)[0]["patch"]["value"]["decorator"],
        Value::Null
    );
    assert_eq!(
        clusters(&gate)["intercept-app|8080"]["metadata"],
        Value::Null
    );
}

#[test]
fn the_installer_never_writes_intercepts() {
    let objects = workload_objects(&mesh(), &example::workload(), &example::plugin()).unwrap();
    let spec = &of_kind(&objects, "WasmPlugin")[0].value()["spec"];
    let keys: Vec<&String> = spec["pluginConfig"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["version", "limits"]);
    assert_eq!(
        spec["phase"],
        Value::Null,
        "with a phase it would stand before an authorization filter"
    );
}

#[test]
fn intercept_is_a_cluster_and_a_text() {
    let objects = intercept(&example::entry());
    let kinds: Vec<&str> = objects.iter().map(Object::kind).collect();
    assert_eq!(
        kinds,
        ["EnvoyFilter", "WasmPlugin"],
        "the cluster must be there before requests are sent to it"
    );
    let place = (Kind::Deployment, "orders");
    assert_eq!(
        objects[0].name(),
        names::of_intercept("orders-bob", place, 8080, 0)
    );
    assert_eq!(
        clusters(&objects[0]).into_keys().collect::<Vec<_>>(),
        ["intercept|8080|orders-bob|relay-0"]
    );
    let written = objects[1].value();
    assert_eq!(written["metadata"]["name"], "injector-deployment-orders");
    let config = written["spec"]["pluginConfig"].as_object().unwrap();
    assert_eq!(config.keys().collect::<Vec<_>>(), ["intercepts"]);
    let text = config["intercepts"].as_str().unwrap();
    let entries: Value = serde_json::from_str(text).unwrap();
    assert_eq!(entries, json!({"orders-bob": example::entry()}));
}

#[test]
fn installer_and_intercept_names_differ() {
    let workload = Workload {
        name: "intercept-orders".to_owned(),
        ..example::workload()
    };
    let mut objects = workload_objects(&mesh(), &workload, &example::plugin()).unwrap();
    objects.extend(installed(&example::install()));
    assert!(
        objects
            .iter()
            .all(|object| !object.name().starts_with(names::INTERCEPT_PREFIX))
    );
}

#[test]
fn kinds_do_not_share_objects() {
    let stateful = Workload {
        kind: Kind::StatefulSet,
        ..example::workload()
    };
    let own = |workload: &Workload| -> BTreeSet<String> {
        let objects = workload_objects(&mesh(), workload, &example::plugin()).unwrap();
        objects[3..]
            .iter()
            .map(|object| object.name().to_owned())
            .collect()
    };
    assert_eq!(own(&stateful).len(), 1);
    assert!(own(&stateful).is_disjoint(&own(&example::workload())));
}

#[test]
fn installation_names_revision_secret_and_relays() {
    let mut install = example::install();
    install.revision = Some("1-31".to_owned());
    install.image_pull_secret = Some("pull".to_owned());
    install.mesh.relay_replicas = 3;
    let objects = installed(&install);
    let labels = &objects[0].value()["metadata"]["labels"];
    assert_eq!(labels["istio.io/rev"], "1-31");
    assert_eq!(
        labels["istio-injection"],
        Value::Null,
        "it would win over the revision"
    );
    let relay = of_kind(&objects, "StatefulSet")[0].value();
    assert_eq!(relay["spec"]["replicas"], 3);
    assert_eq!(
        relay["spec"]["template"]["spec"]["imagePullSecrets"],
        json!([{"name": "pull"}])
    );
    let services: Vec<&str> = of_kind(&objects, "Service")
        .into_iter()
        .map(Object::name)
        .collect();
    assert_eq!(
        services,
        [
            "injector-relay",
            "injector-relay-0",
            "injector-relay-1",
            "injector-relay-2",
            "injector-module"
        ]
    );
}

/// Clients that stall must not stop others on a relay's HTTP/2 connection.
#[test]
fn relays_are_spoken_to_as_ports_are() {
    let merges = |workload: &Workload| -> Vec<Value> {
        let gate = gate(workload);
        let merges = patches(&gate).iter();
        let merges = merges.filter(|patch| patch["patch"]["operation"] == "MERGE");
        merges.cloned().collect()
    };
    assert_eq!(merges(&example::workload()), [json!(null); 0]);
    let merges = merges(&busy());
    let http2 = (0..2).map(|replica| (replica, Protocol::Http2, "explicit_http_config"));
    let auto = (0..2).map(|replica| (replica, Protocol::Auto, "use_downstream_protocol_config"));
    assert_eq!(merges.len(), 4);
    for ((replica, protocol, key), patch) in http2.chain(auto).zip(merges) {
        let name = mesh().relay_cluster(replica, protocol);
        assert_eq!(patch["match"]["cluster"]["name"], name);
        assert_eq!(patch["match"]["context"], "SIDECAR_OUTBOUND");
        let options = &patch["patch"]["value"]["typed_extension_protocol_options"];
        let options = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        let h2 = &options[key]["http2_protocol_options"];
        assert_eq!(h2["initial_connection_window_size"], (1u32 << 31) - 1);
        assert_eq!(
            options["common_http_protocol_options"]["idle_timeout"],
            "60s"
        );
    }
}

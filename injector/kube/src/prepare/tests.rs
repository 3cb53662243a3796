//! Objects in, facts out.

use intercept_manifest::facts::Protocol;
use intercept_manifest::istio::{Kind, Workload};
use serde_json::{Value, json};

use super::*;

/// A namespace with a workload `orders`, to be changed by each test.
#[derive(Clone)]
struct Stage {
    workload: Value,
    namespace: Value,
    services: Vec<Value>,
    pods: Vec<Value>,
    sidecars: Vec<Value>,
}

fn stage() -> Stage {
    let containers = json!([
        {"name": "app", "ports": [{"name": "web", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]}
    ]);
    Stage {
        workload: json!({
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "selector": {"matchLabels": {"app": "orders"}},
                "template": {"metadata": {"labels": {"app": "orders", "version": "v1"}}, "spec": {"containers": containers}},
            },
        }),
        namespace: json!({"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}),
        services: vec![service(
            "orders",
            "2026-01-01T00:00:00Z",
            json!([{"name": "http", "port": 80, "targetPort": "web"}]),
        )],
        pods: vec![pod("orders-1", &["app", "istio-proxy"])],
        sidecars: Vec::new(),
    }
}

fn service(name: &str, created: &str, ports: Value) -> Value {
    json!({
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"selector": {"app": "orders"}, "ports": ports},
    })
}

fn pod(name: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    json!({
        "metadata": {"name": name, "labels": {"app": "orders", "version": "v1"}},
        "spec": {"containers": containers},
        "status": {"phase": "Running"},
    })
}

impl Stage {
    fn facts(&self, ports: &[&str]) -> Result<Facts, Unpreparable> {
        let around = Around {
            namespace: &self.namespace,
            services: &self.services,
            pods: &self.pods,
            sidecars: &self.sidecars,
        };
        let ports: Vec<String> = ports.iter().map(|port| (*port).to_owned()).collect();
        facts(Kind::Deployment, &self.workload, around, &ports)
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.workload["spec"]["template"]["metadata"]["annotations"][key] = json!(value);
    }

    fn ports(&self) -> Vec<(u16, Protocol, String)> {
        shown(&self.facts(&[]).unwrap().workload)
    }
}

fn shown(workload: &Workload) -> Vec<(u16, Protocol, String)> {
    let ports = workload.ports.iter();
    ports
        .map(|port| {
            let services = port.services.iter();
            let services: Vec<String> = services
                .map(|one| format!("{}:{}", one.service, one.port))
                .collect();
            (port.number, port.protocol, services.join(" "))
        })
        .collect()
}

#[test]
fn service_port_leads_to_named_container_port() {
    let facts = stage().facts(&[]).unwrap();
    assert_eq!(
        shown(&facts.workload),
        [(8080, Protocol::Http, "orders:80".to_owned())]
    );
    assert_eq!(
        facts.workload.selector,
        [("app".to_owned(), "orders".to_owned())].into()
    );
    assert_eq!(facts.workload.namespace, "shop");
    assert_eq!(facts.workload.ports[0].app.to_string(), "127.0.0.1:8080");
}

#[test]
fn oldest_service_names_a_shared_port() {
    let mut stage = stage();
    let ports = json!([{"name": "grpc", "port": 8000, "targetPort": 8080}]);
    stage
        .services
        .push(service("old", "2025-01-01T00:00:00Z", ports));
    let headless = json!([{"name": "http", "port": 8080}]);
    stage
        .services
        .push(service("young", "2026-06-01T00:00:00Z", headless));
    let expected = (
        8080,
        Protocol::Grpc,
        "old:8000 orders:80 young:8080".to_owned(),
    );
    assert_eq!(stage.ports(), [expected]);
}

#[test]
fn only_selecting_services_count() {
    let mut stage = stage();
    let mut other = service("other", "2025-01-01T00:00:00Z", json!([{"port": 1}]));
    other["spec"]["selector"] = json!({"app": "orders", "version": "v2"});
    let mut external = service("external", "2025-01-01T00:00:00Z", json!([{"port": 2}]));
    external["spec"]["selector"].take();
    stage.services.extend([other, external]);
    assert_eq!(stage.ports().len(), 1);
}

#[test]
fn non_http_port_is_left_out() {
    let mut stage = stage();
    let ports =
        json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp-db", "port": 5432}]);
    stage.services = vec![service("orders", "", ports)];
    let facts = stage.facts(&[]).unwrap();
    assert_eq!(shown(&facts.workload).len(), 1);
    assert_eq!(
        facts.left_out,
        ["port 5432 is `tcp` for Istio, expected HTTP"]
    );
    let error = stage.facts(&["tcp-db"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "Deployment/orders: port 5432 is `tcp` for Istio, expected HTTP"
    );
}

#[test]
fn port_by_service_or_container_name() {
    let mut stage = stage();
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "http-metrics", "port": 8080, "targetPort": 9090}]);
    stage.services = vec![service("orders", "", ports)];
    let number = |wanted: &str| stage.facts(&[wanted]).unwrap().workload.ports[0].number;
    assert_eq!(number("http"), 8080);
    assert_eq!(number("80"), 8080);
    assert_eq!(number("web"), 8080);
    assert_eq!(number("metrics"), 9090);
    assert_eq!(
        number("8080"),
        9090,
        "the Service's 8080, not the container's"
    );
    let error = stage.facts(&["7"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "Deployment/orders: no Service leads to a port `7`, there are 8080 (http, 80, web), 9090 (http-metrics, 8080, metrics)"
    );
}

#[test]
fn sidecar_resource_decides_ports() {
    let mut stage = stage();
    let ingress = json!([
        {"port": {"number": 8080, "protocol": "HTTP2", "name": "x"}, "defaultEndpoint": "127.0.0.1:9999"},
        {"port": {"number": 7000, "protocol": "HTTP", "name": "y"}, "defaultEndpoint": "unix:///tmp/x"},
    ]);
    stage.sidecars = vec![
        json!({"metadata": {"name": "everybody"}, "spec": {"egress": []}}),
        json!({"metadata": {"name": "own"}, "spec": {"workloadSelector": {"labels": {"app": "orders"}}, "ingress": ingress}}),
    ];
    let facts = stage.facts(&[]).unwrap();
    assert_eq!(
        shown(&facts.workload),
        [(8080, Protocol::Http2, "orders:80".to_owned())]
    );
    assert_eq!(facts.workload.ports[0].app.to_string(), "127.0.0.1:9999");
    let reason = "port 7000: Sidecar own leads it to `unix:///tmp/x`, expected 127.0.0.1:PORT";
    assert_eq!(facts.left_out, [reason]);
    let error = stage.facts(&["7000"]).unwrap_err().to_string();
    assert_eq!(error, format!("Deployment/orders: {reason}"));
}

#[test]
fn bypassed_port_is_refused() {
    for (annotation, value) in [
        ("excludeInboundPorts", "1, 8080"),
        ("includeInboundPorts", "9090"),
    ] {
        let mut stage = stage();
        stage.annotate(&format!("traffic.sidecar.istio.io/{annotation}"), value);
        let error = stage.facts(&[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "Deployment/orders: no port that can be intercepted: port 8080 goes past the sidecar (traffic.sidecar.istio.io annotations)"
        );
    }
}

#[test]
fn live_pod_without_sidecar_is_refused() {
    let mut stage = stage();
    let mut finished = pod("orders-0", &["app"]);
    finished["status"]["phase"] = json!("Succeeded");
    stage.pods.push(finished);
    stage.facts(&[]).unwrap();
    stage.pods.push(pod("orders-2", &["app"]));
    let error = stage.facts(&[]).unwrap_err().to_string();
    assert_eq!(error, "Deployment/orders: 1 of its 2 pods have no sidecar");
}

#[test]
fn a_native_sidecar_is_a_sidecar() {
    let mut stage = stage();
    stage.pods[0]["spec"] =
        json!({"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]});
    stage.facts(&[]).unwrap();
}

#[test]
fn labels_predict_sidecar_without_pods() {
    let mut stage = stage();
    stage.pods.clear();
    stage.facts(&[]).unwrap();
    stage.namespace = json!({"metadata": {"name": "shop"}});
    let error = stage.facts(&[]).unwrap_err();
    assert_eq!(
        error,
        Unpreparable::NotInjected("Deployment/orders".to_owned())
    );
    stage.namespace["metadata"]["labels"] = json!({"istio.io/rev": "canary"});
    stage.facts(&[]).unwrap();
    stage.workload["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] =
        json!("false");
    stage.facts(&[]).unwrap_err();
}

#[test]
fn pods_in_the_nodes_network_are_refused() {
    let mut stage = stage();
    stage.workload["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let error = stage.facts(&[]).unwrap_err();
    assert_eq!(
        error,
        Unpreparable::HostNetwork("Deployment/orders".to_owned())
    );
}

#[test]
fn a_selector_with_expressions_is_refused() {
    let mut stage = stage();
    stage.workload["spec"]["selector"]["matchExpressions"] =
        json!([{"key": "a", "operator": "Exists"}]);
    let error = stage.facts(&[]).unwrap_err();
    assert_eq!(
        error,
        Unpreparable::Expressions("Deployment/orders".to_owned())
    );
}

#[test]
fn probes_pass_filter_without_rewriting() {
    let mut stage = stage();
    assert!(!stage.facts(&[]).unwrap().probes_go_through);
    stage.annotate("sidecar.istio.io/rewriteAppHTTPProbers", "false");
    assert!(stage.facts(&[]).unwrap().probes_go_through);
}

#[test]
fn workload_without_service_has_no_ports() {
    let mut stage = stage();
    stage.services.clear();
    let error = stage.facts(&[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "Deployment/orders: no port that can be intercepted: no Service leads to it"
    );
}

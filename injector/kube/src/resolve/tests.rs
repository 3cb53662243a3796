//! Which workload, and which of its ports, a word means.

use serde_json::json;

use super::ports::{meant, port_names};
use super::*;

fn service(name: &str, selector: Value, ports: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": selector, "ports": ports}})
}

fn workload(name: &str, labels: Value) -> Value {
    let ports = json!([{"name": "web", "containerPort": 8080}, {"containerPort": 9090}]);
    json!({"metadata": {"name": name}, "spec": {"template": {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "ports": ports}]},
    }}})
}

fn shop() -> Listed {
    let orders = json!({"app": "orders"});
    Listed {
        namespace: "shop".to_owned(),
        services: vec![
            service(
                "orders",
                orders.clone(),
                json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81, "targetPort": 9090}]),
            ),
            service("headless", orders.clone(), json!([{"port": 8080}])),
            service("outside", Value::Null, json!([])),
            service("carts", json!({"app": "carts"}), json!([])),
        ],
        workloads: vec![
            (Kind::Deployment, workload("orders-v1", orders)),
            (
                Kind::StatefulSet,
                workload("carts", json!({"app": "carts", "v": "1"})),
            ),
            (
                Kind::DaemonSet,
                workload("carts", json!({"app": "carts", "v": "2"})),
            ),
        ],
    }
}

fn found(target: &str) -> std::result::Result<(Kind, String), String> {
    let wanted = wanted(target).map_err(|failure| failure.to_string())?;
    let found = find(wanted, &shop()).map_err(|failure| failure.to_string())?;
    Ok((found.kind, found.name))
}

#[test]
fn target_is_a_service_or_workload() {
    let orders = Ok((Kind::Deployment, "orders-v1".to_owned()));
    for target in [
        "orders",
        "svc/orders",
        "service/headless",
        "orders-v1",
        "deploy/orders-v1",
        "deployment.apps/orders-v1",
    ] {
        assert_eq!(found(target), orders, "{target}");
    }
    assert_eq!(
        found("sts/carts"),
        Ok((Kind::StatefulSet, "carts".to_owned()))
    );
    assert_eq!(found("ds/carts"), Ok((Kind::DaemonSet, "carts".to_owned())));
}

#[test]
fn unresolved_target_lists_candidates() {
    let cases = [
        (
            "nothing",
            "no such service or workload in the namespace shop",
        ),
        ("svc/orders-v1", "svc/orders-v1: no such service"),
        ("deploy/carts", "deployment/carts: no such"),
        ("outside", "has pods that it selects"),
        (
            "carts",
            "several workloads are meant by it: statefulset/carts, daemonset/carts",
        ),
        ("pod/x", "expected a name, or svc/"),
    ];
    for (target, expected) in cases {
        let error = found(target).unwrap_err();
        assert!(error.contains(expected), "{target}: {error}");
    }
}

#[test]
fn service_port_wins_over_container_port() {
    let found = find(WorkloadName::Named("orders"), &shop()).unwrap();
    let cases = [
        ("http", Some(8080)),
        ("80", Some(8080)),
        ("web", Some(8080)),
        ("8080", Some(8080)),
        ("81", Some(9090)),
        ("admin", Some(9090)),
        ("9090", Some(9090)),
        ("7", None),
    ];
    for (word, port) in cases {
        assert_eq!(meant(&found, word), port, "{word}");
    }
    let headless = find(WorkloadName::Named("headless"), &shop()).unwrap();
    assert_eq!(meant(&headless, "8080"), Some(8080));
    assert_eq!(meant(&headless, "http"), None);
    // As Kubernetes has it: 0 is the port's own number.
    let mut zero = headless;
    zero.services[0]["spec"]["ports"][0]["targetPort"] = json!(0);
    assert_eq!(meant(&zero, "8080"), Some(8080));
}

#[test]
fn port_has_names_of_all_services() {
    let found = find(
        WorkloadName::Workload(Kind::Deployment, "orders-v1"),
        &shop(),
    )
    .unwrap();
    let names = port_names(&found, 8080);
    let services: Vec<_> = names
        .services
        .iter()
        .map(|port| (port.service.as_str(), port.number))
        .collect();
    assert_eq!(services, [("orders", 80), ("headless", 8080)]);
    assert_eq!(names.container.as_deref(), Some("web"));
}

#[test]
fn service_ports_may_share_a_container_port() {
    let mut shop = shop();
    let ports = json!([{"name": "old", "port": 8000, "targetPort": 8080}, {"name": "older", "port": 8001, "targetPort": "web"}]);
    shop.services
        .push(service("legacy", json!({"app": "orders"}), ports));
    let numbers = |target| {
        let found = find(wanted(target).unwrap(), &shop).unwrap();
        let names = port_names(&found, 8080).services;
        let numbers: Vec<u16> = names.iter().map(|name| name.number).collect();
        let meant: Vec<Option<u16>> = numbers
            .iter()
            .map(|number| meant(&found, &number.to_string()))
            .collect();
        assert!(meant.iter().all(|port| *port == Some(8080)), "{meant:?}");
        numbers
    };
    assert_eq!(
        numbers("legacy"),
        [8000, 8001],
        "by the Service that is named"
    );
    assert_eq!(numbers("orders"), [80]);
    assert_eq!(
        numbers("deploy/orders-v1"),
        [80, 8080, 8000, 8001],
        "by all of them"
    );
}

#[test]
fn workload_wins_over_service_without_pods() {
    let mut shop = shop();
    shop.services
        .push(service("orders-v1", json!({"app": "gone"}), json!([])));
    let found = find(WorkloadName::Named("orders-v1"), &shop).unwrap();
    assert_eq!(
        (found.kind, found.name.as_str()),
        (Kind::Deployment, "orders-v1")
    );
    assert!(find(WorkloadName::Service("orders-v1"), &shop).is_err());
}

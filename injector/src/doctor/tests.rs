//! Objects in, findings out.

use serde_json::{Value, json};

use super::seen::{Installation, Surroundings, Target};
use super::*;
use crate::manifest::istio::{example, install, workload_objects};

fn installed() -> Installation {
    let objects = install::cluster_objects(&example::install()).unwrap();
    let find = |kind: &str| {
        let object = objects.iter().find(|object| object.kind() == kind).unwrap();
        let mut object = object.value().clone();
        object["status"] = json!({"readyReplicas": 2});
        object
    };
    let bindings = objects
        .iter()
        .filter(|object| object.kind() == "ValidatingAdmissionPolicyBinding");
    Installation {
        relay: Ok(Some(find("StatefulSet"))),
        module: Ok(Some(find("Deployment"))),
        policies: Ok(bindings.map(|object| object.value().clone()).collect()),
        istio: Ok(Vec::new()),
    }
}

/// The example's workload, prepared.
fn target() -> Target {
    let workload = example::workload();
    let objects =
        workload_objects(&example::install().mesh, &workload, &example::plugin()).unwrap();
    let of = |kind: &str| -> Vec<Value> {
        let objects = objects.iter().filter(|object| object.kind() == kind);
        objects.map(|object| object.value().clone()).collect()
    };
    Target {
        namespace: workload.namespace.clone(),
        kind: workload.kind,
        object: json!({
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "selector": {"matchLabels": {"app": "orders"}},
                "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": []}},
            },
        }),
        services: vec![
            json!({"metadata": {"name": "orders"}, "spec": {"selector": {"app": "orders"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        ],
        pods: vec![json!({
            "metadata": {"name": "orders-1", "labels": {"app": "orders"}},
            "spec": {"containers": [{"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.31.0-distroless"}]},
        })],
        sidecars: Ok(Vec::new()),
        around: json!({}),
        plugin: Ok(of("WasmPlugin").pop()),
        filters: Ok(of("EnvoyFilter")),
        rules: Ok(of("DestinationRule")),
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        root_filters: Ok(Vec::new()),
        root_sidecars: Ok(Vec::new()),
        authorization: Ok(Vec::new()),
        peers: Ok(Vec::new()),
    }
}

#[track_caller]
fn all_good(checks: &[Check]) {
    assert!(!checks.is_empty());
    let wrong: Vec<&Check> = checks
        .iter()
        .filter(|check| check.outcome != Outcome::Good)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The one check that is not good.
#[track_caller]
fn only_wrong(checks: Vec<Check>) -> (Outcome, String) {
    let mut wrong = checks
        .into_iter()
        .filter(|check| check.outcome != Outcome::Good);
    let first = wrong.next().expect("everything is good");
    assert_eq!(wrong.next(), None);
    assert_eq!(first.hint.is_some(), first.outcome != Outcome::Unknown);
    (first.outcome, first.found)
}

#[test]
fn nothing_is_found_where_everything_is_as_it_should_be() {
    all_good(&installation::checks(&installed(), "injector-system"));
    all_good(&workload::checks(&target()));
    all_good(&surroundings::checks(
        &surroundings(),
        &target(),
        "injector-system",
    ));
}

#[test]
fn a_relay_that_is_down_or_of_another_version_is_found() {
    let mut seen = installed();
    seen.relay.as_mut().unwrap().as_mut().unwrap()["status"] = json!({});
    assert_eq!(
        only_wrong(installation::checks(&seen, "x")),
        (Outcome::Bad, "injector-relay: 0/2 ready".to_owned())
    );
    let mut seen = installed();
    seen.relay.as_mut().unwrap().as_mut().unwrap()["metadata"]["labels"]["app.kubernetes.io/version"] =
        json!("9.9.9");
    assert!(
        only_wrong(installation::checks(&seen, "x"))
            .1
            .starts_with("the relays are of version `9.9.9`")
    );
    let mut seen = installed();
    seen.policies.as_mut().unwrap().pop();
    assert_eq!(
        only_wrong(installation::checks(&seen, "x")).1,
        "3 of 4 admission policies are in force"
    );
}

#[test]
fn a_workload_that_is_not_prepared_is_found() {
    let mut target = target();
    target.plugin = Ok(None);
    let (outcome, found) = only_wrong(workload::checks(&target));
    assert_eq!(
        (outcome, found.as_str()),
        (
            Outcome::Bad,
            "Deployment/orders: it is not prepared for intercepts"
        )
    );
}

#[test]
fn a_port_that_came_after_the_gate_is_found() {
    let mut target = target();
    target.services[0]["spec"]["ports"] =
        json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 9090}]);
    assert_eq!(
        only_wrong(workload::checks(&target)).1,
        "the gate lacks these ports: 9090"
    );
}

#[test]
fn an_old_mesh_is_found() {
    let mut target = target();
    target.pods[0]["spec"]["containers"][0]["image"] = json!("istio/proxyv2:1.28.3");
    assert_eq!(
        only_wrong(workload::checks(&target)).1,
        "sidecars are of Istio 1.28.3, expected 1.29 or newer"
    );
}

#[test]
fn a_sidecar_resource_that_hides_the_relays_is_found() {
    let mut target = target();
    let sidecar = |hosts: Value| json!({"metadata": {"name": "narrow"}, "spec": {"egress": [{"hosts": hosts}]}});
    target.sidecars = Ok(vec![sidecar(json!(["./*", "istio-system/*"]))]);
    let (outcome, found) = only_wrong(surroundings::checks(
        &surroundings(),
        &target,
        "injector-system",
    ));
    assert_eq!(outcome, Outcome::Bad);
    assert!(
        found.starts_with("Sidecar narrow: it hides the relays"),
        "{found}"
    );
    for hosts in ["*/*", "injector-system/*", "*/*.svc.cluster.local"] {
        target.sidecars = Ok(vec![sidecar(json!(["./*", hosts]))]);
        all_good(&surroundings::checks(
            &surroundings(),
            &target,
            "injector-system",
        ));
    }
}

#[test]
fn other_filters_on_the_same_routes_are_found() {
    let filter = |apply_to: &str, context: &str, selector: Value| json!({"metadata": {"name": "theirs"}, "spec": {"workloadSelector": {"labels": selector}, "configPatches": [{"applyTo": apply_to, "match": {"context": context}}]}});
    let found = |filter: Value| {
        let mut seen = surroundings();
        seen.root_filters = Ok(vec![filter]);
        let checks = surroundings::checks(&seen, &target(), "injector-system");
        checks.iter().any(|check| check.outcome == Outcome::Perhaps)
    };
    assert!(found(filter("HTTP_ROUTE", "SIDECAR_INBOUND", json!({}))));
    assert!(found(filter(
        "VIRTUAL_HOST",
        "ANY",
        json!({"app": "orders"})
    )));
    assert!(!found(filter("HTTP_ROUTE", "SIDECAR_OUTBOUND", json!({}))));
    assert!(!found(filter("HTTP_FILTER", "SIDECAR_INBOUND", json!({}))));
    assert!(!found(filter(
        "HTTP_ROUTE",
        "SIDECAR_INBOUND",
        json!({"app": "other"})
    )));
}

#[test]
fn policies_of_others_on_the_relays_are_found() {
    let policy = |labels: Value| json!({"metadata": {"name": "theirs"}, "spec": {"selector": {"matchLabels": labels}}});
    let mut seen = surroundings();
    seen.authorization = Ok(vec![policy(json!({"app": "other"}))]);
    all_good(&surroundings::checks(&seen, &target(), "injector-system"));
    seen.authorization = Ok(vec![json!({"metadata": {"name": "theirs"}, "spec": {}})]);
    assert_eq!(
        only_wrong(surroundings::checks(&seen, &target(), "injector-system")).0,
        Outcome::Perhaps
    );
    let mut seen = surroundings();
    seen.peers = Ok(vec![policy(
        json!({"app.kubernetes.io/name": "injector-relay"}),
    )]);
    assert_eq!(
        only_wrong(surroundings::checks(&seen, &target(), "injector-system")).0,
        Outcome::Perhaps
    );
}

#[test]
fn what_the_caller_may_not_see_is_said_and_is_no_fault() {
    let mut seen = installed();
    let status = json!({"code": 403, "message": "forbidden", "reason": "Forbidden"});
    let status = Box::new(serde_json::from_value(status).unwrap());
    seen.policies = Err(ClusterError::Refused {
        what: "x".to_owned(),
        status,
    });
    assert_eq!(
        only_wrong(installation::checks(&seen, "x")).0,
        Outcome::Unknown
    );
}

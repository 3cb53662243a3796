//! Objects in, findings out.

use std::collections::BTreeMap;

use intercept_kube::ClusterError;
use intercept_kube::resolve::Resolved;
use intercept_manifest::istio::resource::{ACCEPTED, Condition, InterceptStatus, PROGRAMMED};
use intercept_manifest::istio::{Object, example, install, intercept, names, workload_objects};
use serde_json::{Value, json};

use super::proxy::{Expected, Proxy, compare};
use super::snapshot::{Installation, Intercepts, Surroundings, Target};
use super::*;

fn installed() -> Installation {
    let objects = install::cluster_objects(&example::install()).unwrap();
    let find = |kind: &str, name: &str| {
        let is_it = |object: &&Object| object.kind() == kind && object.name() == name;
        let object = objects.iter().find(is_it).unwrap();
        let mut object = object.value().clone();
        object["status"] = json!({"readyReplicas": 2});
        object
    };
    let all = |kind: &str| -> Vec<Value> {
        let objects = objects.iter().filter(|object| object.kind() == kind);
        objects.map(|object| object.value().clone()).collect()
    };
    Installation {
        relay: Ok(Some(find("StatefulSet", names::RELAY))),
        module: Ok(Some(find("Deployment", names::MODULE))),
        controller: Ok(Some(find("Deployment", names::CONTROLLER))),
        policies: Ok(all("ValidatingAdmissionPolicy")),
        bindings: Ok(all("ValidatingAdmissionPolicyBinding")),
        istio: Ok(Vec::new()),
        services: Ok(all("Service")),
        around: Ok(None),
    }
}

#[test]
fn relays_without_a_sidecar_are_no_good_to_anybody() {
    let relay = |containers: Value| json!({"metadata": {"name": "injector-relay-0"}, "spec": {"containers": containers}});
    let check = |pods: Vec<Value>| relays::check(&Ok(pods), "injector-system");
    assert_eq!(check(Vec::new()), None);
    let sidecar = json!([{"name": "relay"}, {"name": "istio-proxy", "image": "x/proxyv2:1.30.0"}]);
    assert_eq!(check(vec![relay(sidecar)]).unwrap().outcome, Outcome::Pass);
    let bare = check(vec![relay(json!([{"name": "relay"}]))]).unwrap();
    insta::assert_snapshot!(format!(
        "{}\n{}\n{}",
        bare.id,
        bare.found,
        bare.hint.unwrap()
    ));
    let forbidden = ClusterError::Refused {
        what: "x".to_owned(),
        status: kube::core::Status::failure("no", "Forbidden")
            .with_code(403)
            .boxed(),
    };
    let unknown = relays::check(&Err(forbidden), "injector-system").unwrap();
    assert_eq!(unknown.outcome, Outcome::Unknown);
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
        relay_namespace: "injector-system".to_owned(),
        found: Resolved {
            kind: workload.kind,
            name: workload.name.clone(),
            object: json!({
                "metadata": {"name": "orders", "namespace": "shop"},
                "spec": {
                    "selector": {"matchLabels": {"app": "orders"}},
                    "template": {"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": []}},
                },
            }),
            services: Vec::new(),
        },
        services: vec![
            json!({"metadata": {"name": "orders"}, "spec": {"selector": {"app": "orders"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        ],
        pods: vec![json!({
            "metadata": {"name": "orders-1", "labels": {"app": "orders"}},
            "spec": {"containers": [{"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.31.0-distroless"}]},
        })],
        sidecars: Ok(Vec::new()),
        around: Ok(None),
        authorization: Ok(Vec::new()),
        peers: Ok(Vec::new()),
        plugin: Ok(of("WasmPlugin").pop()),
        filters: Ok(of("EnvoyFilter")),
        rules: Ok(of("DestinationRule")),
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        root_filters: Ok(Vec::new()),
        root_sidecars: Ok(Vec::new()),
        root_authorization: Ok(Vec::new()),
        root_peers: Ok(Vec::new()),
        authorization: Ok(Vec::new()),
        peers: Ok(Vec::new()),
    }
}

#[track_caller]
fn all_good(checks: &[Check]) {
    assert!(!checks.is_empty());
    let wrong: Vec<&Check> = checks
        .iter()
        .filter(|check| check.outcome != Outcome::Pass)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The one check that is not good.
#[track_caller]
fn only_wrong(checks: Vec<Check>) -> (Outcome, String) {
    let mut wrong = checks
        .into_iter()
        .filter(|check| check.outcome != Outcome::Pass);
    let first = wrong.next().expect("everything is good");
    assert_eq!(wrong.next(), None);
    assert_eq!(first.hint.is_some(), first.outcome != Outcome::Unknown);
    (first.outcome, first.found)
}

#[test]
fn nothing_is_found_where_everything_is_as_it_should_be() {
    all_good(&installation::checks(&installed(), "injector-system"));
    all_good(&workload::checks(&target()));
    all_good(&mesh_conflicts::checks(
        &surroundings(),
        &target(),
        "injector-system",
    ));
    all_good(&policies::checks(
        &surroundings(),
        &target(),
        &relay_labels(),
    ));
    all_good(&[mesh_conflicts::export(
        &installed(),
        &Value::Null,
        &target(),
        "injector-system",
    )]);
    all_good(&intercepts::checks(&namespace()));
    all_good(&compare(
        &[proxy()],
        &Expected::of(&target()).unwrap(),
        "shop",
    ));
    all_good(&[clock::compared(1_000, 1_030), clock::compared(1_030, 1_000)]);
}

#[test]
fn a_relay_that_is_down_or_of_another_version_is_found() {
    let mut seen = installed();
    seen.relay.as_mut().unwrap().as_mut().unwrap()["status"] = json!({});
    assert_eq!(
        only_wrong(installation::checks(&seen, "x")),
        (Outcome::Fail, "injector-relay: 0/2 ready".to_owned())
    );
    let mut seen = installed();
    seen.relay.as_mut().unwrap().as_mut().unwrap()["metadata"]["labels"]["app.kubernetes.io/version"] =
        json!("9.9.9");
    assert!(
        only_wrong(installation::checks(&seen, "x"))
            .1
            .starts_with("the relays are of version `9.9.9`")
    );
}

#[test]
fn a_policy_that_is_not_in_force_everywhere_is_found() {
    let without = |change: &dyn Fn(&mut Installation)| {
        let mut seen = installed();
        change(&mut seen);
        let (outcome, found) = only_wrong(installation::checks(&seen, "x"));
        assert_eq!(outcome, Outcome::Fail);
        assert_eq!(found, "1 of 2 admission policies are in force");
    };
    let binding = |seen: &mut Installation, key: &str, value: Value| {
        seen.bindings.as_mut().unwrap()[1]["spec"][key] = value;
    };
    without(&|seen| drop(seen.bindings.as_mut().unwrap().pop()));
    without(&|seen| drop(seen.policies.as_mut().unwrap().pop()));
    without(&|seen| seen.policies.as_mut().unwrap()[0]["spec"]["failurePolicy"] = json!("Ignore"));
    without(&|seen| binding(seen, "validationActions", json!(["Audit", "Warn"])));
    without(&|seen| {
        let namespaces = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
        binding(seen, "matchResources", namespaces);
    });
}

#[test]
fn a_workload_that_is_not_prepared_is_found() {
    let mut target = target();
    target.plugin = Ok(None);
    let (outcome, found) = only_wrong(workload::checks(&target));
    assert_eq!(
        (outcome, found.as_str()),
        (
            Outcome::Fail,
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
        "pod orders-1: its sidecar is Istio 1.28, expected 1.29 or later"
    );
}

#[test]
fn a_sidecar_resource_that_hides_the_relays_is_found() {
    let mut target = target();
    let sidecar = |hosts: Value| json!({"metadata": {"name": "narrow"}, "spec": {"egress": [{"hosts": hosts}]}});
    target.sidecars = Ok(vec![sidecar(json!(["./*", "istio-system/*"]))]);
    let (outcome, found) = only_wrong(mesh_conflicts::checks(
        &surroundings(),
        &target,
        "injector-system",
    ));
    assert_eq!(outcome, Outcome::Fail);
    assert!(
        found.starts_with("Sidecar narrow: it hides the relays"),
        "{found}"
    );
    for hosts in ["*/*", "injector-system/*", "*/*.svc.cluster.local"] {
        target.sidecars = Ok(vec![sidecar(json!(["./*", hosts]))]);
        all_good(&mesh_conflicts::checks(
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
        let checks = mesh_conflicts::checks(&seen, &target(), "injector-system");
        checks.iter().any(|check| check.outcome == Outcome::Warn)
    };
    assert!(found(filter("HTTP_ROUTE", "SIDECAR_INBOUND", json!({}))));
    assert!(found(filter(
        "VIRTUAL_HOST",
        "ANY",
        json!({"app": "orders"})
    )));
    assert!(!found(filter("HTTP_ROUTE", "SIDECAR_OUTBOUND", json!({}))));
    assert!(found(filter("HTTP_FILTER", "SIDECAR_INBOUND", json!({}))));
    assert!(!found(filter("CLUSTER", "SIDECAR_INBOUND", json!({}))));
    assert!(!found(filter(
        "HTTP_ROUTE",
        "SIDECAR_INBOUND",
        json!({"app": "other"})
    )));
}

#[test]
fn policies_of_others_on_the_relays_are_found() {
    let policy = |labels: Value, spec: Value| {
        let mut policy = json!({"metadata": {"name": "theirs", "namespace": "x"}, "spec": spec});
        policy["spec"]["selector"] = json!({"matchLabels": labels});
        policy
    };
    let found = |authorization: Vec<Value>, peers: Vec<Value>| {
        let mut seen = surroundings();
        (seen.authorization, seen.peers) = (Ok(authorization), Ok(peers));
        policies::checks(&seen, &target(), &relay_labels())
    };
    let relay = json!({"app.kubernetes.io/name": "injector-relay"});
    let deny = json!({"action": "DENY", "rules": [{"from": []}]});
    all_good(&found(
        vec![policy(json!({"app": "other"}), deny.clone())],
        vec![],
    ));
    // One more that allows takes nothing away: ours allows already.
    all_good(&found(
        vec![policy(json!({}), json!({"rules": []}))],
        vec![],
    ));
    let (outcome, text) = only_wrong(found(vec![policy(json!({}), deny)], vec![]));
    assert_eq!(
        (outcome, text.contains("x/theirs")),
        (Outcome::Warn, true),
        "{text}"
    );
    let deny_all = policy(relay.clone(), json!({"action": "DENY", "rules": [{}]}));
    assert_eq!(only_wrong(found(vec![deny_all], vec![])).0, Outcome::Fail);
    let peers = |mode: &str| policy(relay.clone(), json!({"mtls": {"mode": mode}}));
    assert_eq!(
        only_wrong(found(vec![], vec![peers("PERMISSIVE")])).0,
        Outcome::Warn
    );
    assert_eq!(
        only_wrong(found(vec![], vec![peers("DISABLE")])).0,
        Outcome::Fail
    );
}

/// Of one relay that runs.
fn relay_labels() -> Vec<BTreeMap<String, String>> {
    let installed = installed();
    let relay = installed.relay.as_ref().unwrap().as_ref().unwrap();
    let mut pod = relay["spec"]["template"].clone();
    pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!("0");
    policies::of_relays(Some(relay), &Ok(vec![pod]))
}

#[test]
fn policies_that_select_the_relays_by_any_of_their_labels_are_found() {
    let told = |key: &str, value: &str, relays: &[BTreeMap<String, String>]| {
        let selector = json!({"matchLabels": {key: value}});
        let policy = |spec: Value| {
            let mut policy =
                json!({"metadata": {"name": "theirs", "namespace": "x"}, "spec": spec});
            policy["spec"]["selector"] = selector.clone();
            policy
        };
        let mut seen = surroundings();
        seen.authorization = Ok(vec![policy(json!({"action": "DENY", "rules": [{}]}))]);
        seen.peers = Ok(vec![policy(json!({"mtls": {"mode": "DISABLE"}}))]);
        let checks = policies::checks(&seen, &target(), relays);
        let bad = checks
            .into_iter()
            .filter(|check| check.outcome == Outcome::Fail);
        bad.map(|check| check.id).collect::<Vec<_>>()
    };
    let both = ["relay-authorization", "relay-mtls"];
    for (key, value) in [
        ("app.kubernetes.io/name", "injector-relay"),
        ("app.kubernetes.io/part-of", "injector"),
        ("apps.kubernetes.io/pod-index", "0"),
    ] {
        assert_eq!(told(key, value, &relay_labels()), both, "{key}");
    }
    let none = told("app.kubernetes.io/part-of", "shop", &relay_labels());
    assert!(none.is_empty(), "{none:?}");
    // Before there is a pod, and without the right to look.
    let relay = installed().relay.unwrap();
    let meant = policies::of_relays(relay.as_ref(), &Ok(Vec::new()));
    assert_eq!(told("app.kubernetes.io/part-of", "injector", &meant), both);
    let unseen = policies::of_relays(None, &Ok(Vec::new()));
    assert_eq!(
        told("app.kubernetes.io/name", "injector-relay", &unseen),
        both
    );
}

#[test]
fn policies_at_the_workload_are_told() {
    let mut target = target();
    let spec =
        json!({"selector": {"matchLabels": {"app": "orders"}}, "action": "DENY", "rules": [{}]});
    target.authorization = Ok(vec![json!({"metadata": {"name": "theirs"}, "spec": spec})]);
    let (outcome, found) = only_wrong(policies::checks(&surroundings(), &target, &relay_labels()));
    assert_eq!(outcome, Outcome::Warn);
    assert!(
        found.contains("theirs: it decides before any intercept (DENY)"),
        "{found}"
    );
    target.authorization = Ok(Vec::new());
    target.peers = Ok(vec![
        json!({"metadata": {"name": "default"}, "spec": {"mtls": {"mode": "STRICT"}}}),
    ]);
    let checks = policies::checks(&surroundings(), &target, &relay_labels());
    all_good(&checks);
    assert!(
        checks
            .iter()
            .any(|check| check.id == "mtls" && check.found.contains("STRICT"))
    );
}

#[test]
fn relays_that_are_not_exported_are_found() {
    let export = |annotation: Option<&str>, mesh: Value| {
        let mut seen = installed();
        if let Some(places) = annotation {
            for service in seen.services.as_mut().unwrap() {
                service["metadata"]["annotations"]["networking.istio.io/exportTo"] = json!(places);
            }
        }
        mesh_conflicts::export(&seen, &mesh, &target(), "injector-system").outcome
    };
    assert_eq!(export(Some("."), Value::Null), Outcome::Fail);
    assert_eq!(export(Some("., shop"), Value::Null), Outcome::Pass);
    let hidden = json!({"defaultServiceExportTo": ["."]});
    assert_eq!(export(None, hidden.clone()), Outcome::Fail);
    assert_eq!(export(Some("*"), hidden), Outcome::Pass);
}

#[test]
fn a_rule_for_a_relay_that_may_win_over_ours_is_found() {
    let mut target = target();
    let host = "injector-relay-1.injector-system.svc.cluster.local";
    let theirs = json!({"metadata": {"name": "theirs"}, "spec": {"host": host, "workloadSelector": {"matchLabels": {"app": "orders"}}}});
    target.rules.as_mut().unwrap().push(theirs);
    let (outcome, found) = only_wrong(workload::checks(&target));
    assert_eq!(
        (outcome, found.starts_with("DestinationRule theirs: ")),
        (Outcome::Fail, true)
    );
    let wildcard = json!({"metadata": {"name": "all"}, "spec": {"host": "*.svc.cluster.local"}});
    target.rules = Ok(vec![wildcard]);
    let (outcome, found) = only_wrong(workload::checks(&target));
    assert_eq!(outcome, Outcome::Fail);
    assert!(
        found.contains("no DestinationRule of ours for injector-relay-0."),
        "{found}"
    );
}

#[test]
fn a_filter_that_is_served_no_longer_is_found() {
    let digest = |served: &str| installation::same_digest(served, "aa", &target()).outcome;
    assert_eq!(digest("aa"), Outcome::Pass);
    assert_eq!(digest("bb"), Outcome::Fail);
}

#[test]
fn the_line_to_prepare_it_again_keeps_what_the_workload_has() {
    let mut target = target();
    let config = &mut target.plugin.as_mut().unwrap().as_mut().unwrap()["spec"]["pluginConfig"];
    config["limits"] = json!({"allow_all": true, "header_names": ["x-intercept-id"]});
    let hint = |check: Check| check.hint.unwrap();
    let (line, limits) = (
        "injector install -n shop --workload deployment/orders",
        "--allow-all --header-name x-intercept-id",
    );
    let digest = installation::same_digest("bb", "aa", &target);
    assert_eq!(
        hint(digest),
        format!("an operator prepares it again: {line} --port 8080 {limits}")
    );
    // Ports that came later are only prepared where none is named.
    target.services[0]["spec"]["ports"] =
        json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 9090}]);
    let checks = workload::checks(&target);
    let gate = checks.into_iter().find(|check| check.id == "gate").unwrap();
    assert_eq!(
        hint(gate),
        format!("if they are to be intercepted, an operator prepares it again: {line} {limits}")
    );
    // Relays elsewhere, where the doctor was told so.
    (target.plugin, target.filters) = (Ok(None), Ok(Vec::new()));
    target.relay_namespace = "relays".to_owned();
    let checks = workload::checks(&target);
    let prepared = checks
        .into_iter()
        .find(|check| check.id == "prepared")
        .unwrap();
    assert_eq!(
        hint(prepared),
        format!("an operator prepares it: {line} --relay-namespace relays")
    );
    let mut seen = installed();
    seen.policies.as_mut().unwrap().pop();
    let checks = installation::checks(&seen, "relays");
    let policies = checks
        .into_iter()
        .find(|check| check.id == "admission-policies")
        .unwrap();
    assert!(hint(policies).ends_with("injector install --relay-namespace relays"));
}

#[test]
fn a_clock_that_goes_wrong_is_found() {
    assert_eq!(clock::compared(1_000, 1_031).outcome, Outcome::Warn);
    assert_eq!(
        clock::compared(1_031, 1_000).found,
        "this machine's clock is 31 s behind the API server's; leases are counted by the API server's"
    );
}

/// A namespace with the example's intercept, which all proxies have.
fn namespace() -> Intercepts {
    let mut plugin = target().plugin.unwrap().unwrap();
    let entry = example::entry();
    let text = intercept::text([(example::INTERCEPT, &entry)].into_iter());
    plugin["spec"]["pluginConfig"]["intercepts"] = json!(text);
    let mut one = example::intercept();
    one.status = Some(status("True Accepted", "True Programmed"));
    Intercepts {
        namespace: "shop".to_owned(),
        place: " --context c -n shop".to_owned(),
        plugins: Ok(vec![plugin]),
        all: Ok(vec![one]),
    }
}

/// Each with status, reason, and a message that is made of both.
fn status(accepted: &str, programmed: &str) -> InterceptStatus {
    let condition = |kind: &str, said: &str| {
        let (status, reason) = said.split_once(' ').unwrap();
        Condition {
            r#type: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: format!("because {reason}"),
            last_transition_time: String::new(),
        }
    };
    InterceptStatus {
        conditions: vec![
            condition(ACCEPTED, accepted),
            condition(PROGRAMMED, programmed),
        ],
        ..InterceptStatus::default()
    }
}

#[test]
fn intercept_that_takes_no_request_is_found() {
    let told = |status: Option<InterceptStatus>| {
        let mut seen = namespace();
        seen.all.as_mut().unwrap()[0].status = status;
        let (outcome, found) = only_wrong(intercepts::checks(&seen));
        format!("{} {found}", outcome.sign())
    };
    let texts = [
        told(None),
        told(Some(status("False Conflict", "False NotAccepted"))),
        told(Some(status("True Accepted", "False Pending"))),
        told(Some(status("True Accepted", "Unknown NotMeasured"))),
    ];
    insta::assert_snapshot!(texts.join("\n"), @"
    ! orders-bob: the controller has not looked at it
    ✗ orders-bob: because Conflict (Conflict)
    ! orders-bob: because Pending (Pending)
    ? orders-bob: because NotMeasured (NotMeasured); the controller asks port 15090 of the pods, which a NetworkPolicy may close
    ");
    let mut seen = namespace();
    seen.all = Ok(Vec::new());
    let (outcome, found) = only_wrong(intercepts::checks(&seen));
    assert_eq!(outcome, Outcome::Warn);
    assert_eq!(
        found,
        "orders-bob: it is gone, and the proxies still have it"
    );
}

/// An Envoy that has taken everything.
fn proxy() -> Proxy {
    let target = target();
    let patches = |apply_to: &'static str| {
        let gate = target.gate().unwrap();
        let patches = gate["spec"]["configPatches"].as_array().unwrap().clone();
        let meant = patches
            .into_iter()
            .filter(move |patch| patch["applyTo"] == apply_to);
        meant.map(|patch| patch["patch"]["value"].clone())
    };
    let mut routes: Vec<Value> = patches("HTTP_ROUTE").collect();
    routes.push(json!({"name": "default"}));
    let routes = json!({"name": "inbound|8080||", "virtual_hosts": [{"routes": routes}]});
    let chains = json!([{"filters": [{"typed_config": {"route_config": routes}}]}]);
    let mut clusters: Vec<Value> = patches("CLUSTER")
        .map(|value| value["name"].clone())
        .collect();
    let relay = |number: u16| {
        format!("outbound|8080||injector-relay-{number}.injector-system.svc.cluster.local")
    };
    clusters.extend([relay(0), relay(1)].map(Value::from));
    let clusters: Vec<Value> = clusters
        .iter()
        .map(|name| json!({"cluster": {"name": name}}))
        .collect();
    let config =
        target.plugin.as_ref().unwrap().as_ref().unwrap()["spec"]["pluginConfig"].to_string();
    let filter = json!({"@type": intercept_manifest::filter::TYPE_URL, "config": {"configuration": {"value": config}}});
    let name = "extensions.istio.io/trafficextension/shop.injector-deployment-orders~istio-translated-wasmplugin";
    Proxy {
        pod: "orders-1".to_owned(),
        filters: json!({"configs": [{"ecds_filter": {"name": name, "typed_config": filter}}]}),
        listeners: json!({"configs": [{"name": "virtualInbound", "active_state": {"listener": {"filter_chains": chains}}}]}),
        clusters: json!({"configs": clusters}),
        rejected: json!({"stats": []}),
    }
}

#[track_caller]
fn wrong_proxy(change: impl FnOnce(&mut Proxy)) -> (String, String) {
    let mut proxy = proxy();
    change(&mut proxy);
    let mut target = target();
    let checks = compare(&[proxy], &Expected::of(&target).unwrap(), "shop");
    target.plugin = Ok(None);
    let wrong: Vec<&Check> = checks
        .iter()
        .filter(|check| check.outcome == Outcome::Fail)
        .collect();
    assert_eq!(wrong.len(), 1, "{checks:#?}");
    (wrong[0].id.to_string(), wrong[0].found.clone())
}

#[test]
fn a_proxy_that_lacks_something_is_named_with_what_it_lacks() {
    let filter = "/configs/0/ecds_filter/typed_config";
    let (id, found) = wrong_proxy(|proxy| {
        *proxy.filters.pointer_mut(filter).unwrap() =
            json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"});
    });
    assert_eq!(id, "module-fetched");
    assert!(
        found.starts_with("pod orders-1: its agent could not fetch the filter"),
        "{found}"
    );
    let (id, found) = wrong_proxy(|proxy| proxy.filters = json!({}));
    assert_eq!(
        (id.as_str(), found.as_str()),
        (
            "proxies",
            "pod orders-1: its Envoy does not have the filter"
        )
    );
    let (_, found) = wrong_proxy(|proxy| {
        let entry = example::entry();
        let text = intercept::text([("old", &entry)].into_iter());
        let stale = json!({"version": 2, "intercepts": text}).to_string();
        proxy.filters.pointer_mut(filter).unwrap()["config"]["configuration"]["value"] =
            json!(stale);
    });
    assert!(
        found.ends_with("entries of now: old is still there"),
        "{found}"
    );
    let (_, found) = wrong_proxy(|proxy| proxy.listeners = json!({}));
    assert!(
        found.ends_with("port 8080: its Envoy does not have the gate"),
        "{found}"
    );
    let (_, found) = wrong_proxy(|proxy| {
        proxy.clusters["configs"].as_array_mut().unwrap().remove(0);
        proxy.rejected =
            json!({"stats": [{"name": "cluster_manager.cds.update_rejected", "value": 2}]});
    });
    assert!(
        found.contains("no cluster intercept-app|8080 (it rejected 2 pushes of clusters"),
        "{found}"
    );
    let (id, found) = wrong_proxy(|proxy| {
        proxy.clusters["configs"].as_array_mut().unwrap().pop();
    });
    assert_eq!(id, "relay-cluster");
    assert!(found.contains("outbound|8080||injector-relay-1"), "{found}");
}

#[test]
fn a_route_in_front_of_the_gate_is_found() {
    let routes = "/configs/0/active_state/listener/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
    let (_, found) = wrong_proxy(|proxy| {
        let routes = proxy
            .listeners
            .pointer_mut(routes)
            .unwrap()
            .as_array_mut()
            .unwrap();
        routes.insert(0, json!({"name": "theirs"}));
    });
    assert!(
        found.ends_with("port 8080: the route `theirs` stands in front of the gate"),
        "{found}"
    );
}

#[test]
fn a_push_that_envoy_rejected_is_found_with_its_words() {
    let (id, found) = wrong_proxy(|proxy| {
        // As Envoy 1.39 dumps a listener whose update it refused; what was refused is not in force.
        let refused = json!({"failed_configuration": {"name": "virtualInbound", "route_config": {"name": "inbound|8080||", "virtual_hosts": [{"routes": []}]}}, "details": "missing )"});
        proxy.listeners["configs"][0]["error_state"] = refused;
    });
    assert_eq!(id, "push-rejected");
    assert!(
        found.ends_with("rejected what istiod sent last: missing )"),
        "{found}"
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

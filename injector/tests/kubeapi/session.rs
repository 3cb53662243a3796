//! The life of intercepts, and what two who want the same get.

use injector::model::{Live, NotRenewed, Target};
use intercept_core::Document;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

use super::stage::{INTERCEPT, PREPARED, Stage, anything, entry};
use super::support::{developer_server, wait_until};

/// What must be the same before and after; the rest counts changes.
fn lasting(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut spec = object["spec"].clone();
    // The controller's text stays behind without an entry.
    spec["pluginConfig"]
        .as_object_mut()
        .expect("a map")
        .remove("intercepts");
    json!([metadata["labels"], metadata["annotations"], spec])
}

#[test]
fn intercept_lives_and_leaves_nothing() {
    let stage = Stage::new("whole-life");
    let before = lasting(&stage.plugin());
    let port = developer_server("bob's").to_string();
    let intercept = ["intercept", "orders", "--port", &port];
    let running = stage.start(
        "bob",
        &[&intercept[..], &["--http-header=Coder=Bob"]].concat(),
    );
    running.is_live();
    for said in [
        "orders-bob live",
        "-H 'Coder: Bob' http://orders.whole-life/",
    ] {
        assert!(running.stderr().contains(said), "{}", running.stderr());
    }
    let entry = stage.entry("orders-bob").expect("written");
    let intercept = stage.intercept("orders-bob").expect("there");
    let relay = &intercept["spec"]["tunnel"]["relay"];
    assert_eq!(
        (&entry["owner"], &entry["cluster"]),
        (
            &json!("bob"),
            &json!(format!("intercept|8080|orders-bob|relay-{relay}"))
        )
    );
    assert_eq!(stage.clusters(), ["orders-bob"]);

    let listed = stage.run("alice", &["list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["tunnel"], "up", "{listed}");
    assert_eq!(listed[0]["namespace"], "whole-life");
    assert_eq!(listed[0]["replicas"], json!({"live": 2, "all": 2}));

    running.signal(Signal::INT);
    let end = running.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(stage.intercepts(), [""; 0]);
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(lasting(&stage.plugin()), before);
    // Requests that were cut off still need it for a while.
    assert_eq!(stage.clusters(), ["orders-bob"]);
    wait_until(
        || stage.clusters().is_empty(),
        || format!("{:?}", stage.clusters()),
    );
}

#[test]
fn conflicting_intercept_is_refused() {
    let stage = Stage::new("two");
    let bob = stage.live("bob");
    let broad = ["intercept", "orders", "--port=1", "--http-header=Coder=B.*"];
    let refused = stage.run("alice", &broad);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "orders-bob of bob matches the same requests, for example GET / with Coder: Bob";
    assert!(refused.stderr.contains(why), "{refused:?}");
    assert_eq!(stage.intercepts(), ["orders-bob"]);
    let own = ["--port=1:80", "--http-header=Coder=Alice"];
    let alice = stage.start(
        "alice",
        &[&["intercept", "deploy/orders"][..], &own].concat(),
    );
    alice.is_live();
    bob.signal(Signal::TERM);
    assert_eq!(bob.end().code, Some(0));
    assert!(stage.entry("orders-alice").is_some() && stage.entry("orders-bob").is_none());
    alice.signal(Signal::TERM);
    assert_eq!(alice.end().code, Some(0));
}

#[test]
fn lease_is_renewed_for_its_own_tunnel_only() {
    let stage = Stage::new("renewed");
    let target = stage.target("bob");
    let plan = stage.plan(&target, "bob", "bob", "Bob");
    let entry = entry(&plan);
    let address = &entry.address;
    stage
        .wait(target.add(&plan, &entry, &anything))
        .expect("added");
    let live = target.wait_live("bob", &entry, Duration::from_secs(20), &|_| {});
    assert_eq!(stage.wait(live).expect("live"), Live::Verified);
    let before = stage.intercept("bob").expect("there");
    stage
        .wait(target.renew("bob", address, 0))
        .expect("renewed");
    let after = stage.intercept("bob").expect("there");
    assert_ne!(before["spec"]["renewTime"], after["spec"]["renewTime"]);
    assert_eq!(
        after["status"]["observedRenewTime"],
        after["spec"]["renewTime"]
    );

    let other = "f".repeat(32);
    assert_eq!(
        stage.wait(target.renew("bob", &other, 0)),
        Err(NotRenewed::Taken("bob".to_owned()))
    );
    let removed = stage.wait(target.remove("bob", &other)).expect("asked");
    assert!(removed.is_none());
    assert_eq!(stage.intercepts(), ["bob"]);

    stage.delete("bob");
    assert_eq!(
        stage.wait(target.renew("bob", address, 0)),
        Err(NotRenewed::Removed)
    );
    let removed = stage.wait(target.remove("bob", address)).expect("asked");
    assert!(removed.is_none());
    assert_eq!(stage.intercepts(), [""; 0]);
}

#[test]
fn lowered_limits_reach_a_live_intercept() {
    let stage = Stage::new("lowered");
    let running = stage.start("bob", &[INTERCEPT, &["--lease=8h", "--verbose"]].concat());
    running.is_live();
    stage.limit(&json!({"max_lease_seconds": 3_600}));
    running.says("the operator now allows leases of at most 1 h");
    running.says("lease renewed for 1 h");
    stage.limit(&json!({"header_names": ["x-intercept-id"]}));
    let end = running.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    let why =
        "the operator has changed the limits: orders-bob.headers[0].name: `Coder` is not among";
    assert!(end.stderr.contains(why), "{end:?}");
    assert_eq!(stage.intercepts(), [""; 0]);
}

#[test]
fn refusal_of_another_policy_is_told_in_its_words() {
    let stage = Stage::new("refused");
    let target = stage.target("bob");
    let plan = stage.plan(&target, "bob", "bob", "Bob");
    let entry = entry(&plan);
    stage
        .wait(target.add(&plan, &entry, &anything))
        .expect("added");
    let rule = json!({"apiGroups": ["injector.dev"], "apiVersions": ["*"], "resources": ["intercepts"], "operations": ["UPDATE"]});
    forbid(&stage, &rule);
    let renewed = || stage.wait(target.renew("bob", &entry.address, 0));
    wait_until(|| renewed().is_err(), || "it is not in force".to_owned());
    assert!(
        matches!(renewed(), Err(NotRenewed::Failed(why)) if why.contains("not today")),
        "{:?}",
        renewed()
    );
    let removed = stage.wait(target.remove("bob", &entry.address));
    let failure = removed.expect_err("refused");
    assert!(failure.error().contains("not today"), "{failure}");
    assert_eq!(failure.hint(), "injector doctor");
}

#[test]
fn one_of_many_at_once_gets_the_requests() {
    let stage = Stage::new("race");
    let target = stage.target("bob");
    // Five of them want the same requests; only the first may have them.
    let wanted: Vec<_> = (0..10)
        .map(|number| {
            let name = format!("bob-{number}");
            let coder = if number < 5 { "same" } else { &name };
            stage.plan(&target, &name, "bob", coder)
        })
        .collect();
    let outcomes = stage.wait(async {
        let adding = wanted.iter().map(async |plan| {
            let added = target.add(plan, &entry(plan), &anything).await;
            added.map_err(|failure| failure.error().to_owned())
        });
        futures_util::future::join_all(adding).await
    });
    let added = |outcomes: &[Result<(), String>]| outcomes.iter().filter(|one| one.is_ok()).count();
    assert_eq!(added(&outcomes[..5]), 1, "{outcomes:?}");
    assert_eq!(added(&outcomes[5..]), 5, "{outcomes:?}");
    let refused = outcomes.iter().filter_map(|one| one.as_ref().err());
    for why in refused {
        assert!(why.contains("of bob matches the same requests"), "{why}");
    }
    assert_eq!(stage.intercepts().len(), 6);
}

#[test]
fn replaced_intercept_ends_its_command() {
    let stage = Stage::new("replaced");
    let first = stage.live("bob");
    let refused = stage.run("bob", INTERCEPT);
    assert!(
        refused
            .stderr
            .contains("orders-bob: your intercept of this name exists, and its tunnel is up"),
        "{refused:?}"
    );
    let second = stage.start("bob", &[INTERCEPT, &["--replace"]].concat());
    second.is_live();
    let end = first.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    let why = "orders-bob: replaced by another intercept of this name, claimed by bob";
    assert!(end.stderr.contains(why), "{end:?}");
    assert_eq!(stage.intercepts(), ["orders-bob"]);
    second.signal(Signal::INT);
    assert_eq!(second.end().code, Some(0));
    assert_eq!(stage.intercepts(), [""; 0]);
}

#[test]
fn replacement_elsewhere_keeps_the_old_cluster() {
    let stage = Stage::new("kept");
    let target = stage.target("bob");
    let mut plan = stage.plan(&target, "orders-bob", "bob", "Bob");
    // The one that the name does not choose.
    plan.place.replica = 1 - plan.place.replica;
    stage
        .wait(target.add(&plan, &entry(&plan), &anything))
        .expect("added");
    wait_until(
        || stage.clusters() == ["orders-bob"],
        || format!("{:?}", stage.clusters()),
    );
    let before = stage.filters();
    // Its tunnel is away, so its place may be taken.
    let bob = stage.live("bob");
    let there = stage.intercept("orders-bob").expect("there");
    assert_ne!(there["spec"]["tunnel"]["relay"], plan.place.replica);
    let after = stage.filters();
    assert_eq!(after.len(), 2);
    let old = &before[0]["metadata"]["name"];
    let same = after
        .iter()
        .find(|filter| filter["metadata"]["name"] == *old);
    assert_eq!(same.map(|same| &same["spec"]), Some(&before[0]["spec"]));
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
}

/// A policy of the cluster's own against these objects, for the namespace of its name.
fn forbid(stage: &Stage, rule: &Value) {
    let name = stage.namespace.as_str();
    let place =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let object = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    // Without a reason of its own a policy refuses with `Invalid`, as the API server does a patch whose test does not hold.
    stage.server.apply_all(&[
        object("ValidatingAdmissionPolicy", json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": "not today"}]})),
        object("ValidatingAdmissionPolicyBinding", json!({"policyName": name, "validationActions": ["Deny"], "matchResources": place})),
    ]);
}

#[test]
fn cluster_that_is_refused_ends_the_command() {
    let stage = Stage::new("unwritten");
    let rule = json!({"apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "resources": ["envoyfilters"], "operations": ["CREATE"]});
    forbid(&stage, &rule);
    let filter = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "x"}, "spec": {}});
    let create = ["-n", "unwritten", "create", "--dry-run=server"];
    wait_until(
        || !stage.server.kubectl(&create, Some(&filter)).0,
        || "it is not in force".to_owned(),
    );
    let refused = stage.run("bob", INTERCEPT);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in [
        "error: orders-bob: EnvoyFilter unwritten/intercept-orders-bob-",
        "not today",
        "kubectl -n injector-system logs deployment/injector-controller",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(stage.intercepts(), [""; 0]);

    // One that a user applied says so by itself, and comes once it may.
    stage.add("bob", "bob", "Bob");
    let programmed = || {
        let status = stage.intercept("bob").expect("there")["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let mut programmed = conditions.into_iter();
        programmed
            .find(|one| one["type"] == "Programmed")
            .unwrap_or_default()
    };
    wait_until(
        || programmed()["reason"] == "WriteRefused",
        || programmed().to_string(),
    );
    let message = programmed()["message"].to_string();
    assert!(message.contains("not today"), "{message}");
    let listed = stage.run("bob", &["list", "-o", "json"]);
    assert!(listed.stdout.contains("not today"), "{listed:?}");
    let binding = ["delete", "validatingadmissionpolicybinding", "unwritten"];
    stage.server.must(&binding, None);
    wait_until(
        || programmed()["status"] == "True",
        || programmed().to_string(),
    );
}

#[test]
fn name_of_another_developer_is_refused() {
    let stage = Stage::new("name");
    let bob = stage.live("bob");
    let own = ["--name=orders-bob", "--http-header=Coder=Alice"];
    let refused = stage.run(
        "alice",
        &[&["intercept", "orders", "--port=1"][..], &own].concat(),
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "orders-bob: bob has an intercept of this name";
    assert!(refused.stderr.contains(why), "{refused:?}");
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
}

#[test]
fn taken_name_is_followed_by_a_number() {
    let stage = Stage::new("numbered");
    stage.add("orders-alice", "bob", "Bob");
    let own = ["--http-header=Coder=Alice", "--dry-run", "-o", "name"];
    let alice = stage.run(
        "alice",
        &[&["intercept", "orders", "--port=1"][..], &own].concat(),
    );
    assert_eq!(alice.stdout, "orders-alice-2\n", "{alice:?}");
    let told = "orders-alice is the name of another intercept: this one is orders-alice-2";
    assert!(alice.stderr.contains(told), "{alice:?}");
}

#[test]
fn what_a_dry_run_prints_is_what_the_controller_writes() {
    let stage = Stage::new("printed");
    let target = stage.target("bob");
    let plan = stage.plan(&target, "bob", "bob", "Bob");
    let entry = entry(&plan);
    let printed = stage
        .wait(target.rendered(&plan, &entry))
        .expect("rendered");
    let Some([intercept, filter, plugin]) = printed["items"].as_array().map(Vec::as_slice) else {
        panic!("{printed:#?}");
    };
    stage
        .wait(target.add(&plan, &entry, &anything))
        .expect("added");
    let there = stage.intercept("bob").expect("there");
    let mut asked = there["spec"].clone();
    asked["renewTime"] = intercept["spec"]["renewTime"].clone();
    assert_eq!(asked, intercept["spec"]);
    wait_until(|| stage.clusters() == ["bob"], || "no cluster".to_owned());
    let name = filter["metadata"]["name"].as_str().expect("a name");
    let written = stage.server.get("printed", "envoyfilter", name);
    assert_eq!(written["spec"], filter["spec"]);
    for part in ["labels", "annotations", "ownerReferences"] {
        assert_eq!(written["metadata"][part], filter["metadata"][part]);
    }
    let text = |plugin: &Value| {
        let text = plugin["spec"]["pluginConfig"]["intercepts"].as_str();
        let mut text: Value = serde_json::from_str(text.expect("a text")).expect("JSON");
        for key in ["created", "expires"] {
            text["bob"][key] = Value::Null;
        }
        text
    };
    assert_eq!(text(&stage.plugin()), text(plugin));
}

#[test]
fn unprepared_workload_names_the_cure() {
    let stage = Stage::new("unprepared");
    stage.server.must(
        &["-n", "unprepared", "delete", "wasmplugin", PREPARED],
        None,
    );
    let refused = stage.run("bob", &["intercept", "orders", "--port=1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let cure = "injector install -n unprepared --workload deployment/orders";
    assert!(refused.stderr.contains(cure), "{refused:?}");
}

#[test]
fn own_check_sees_what_is_there() {
    let stage = Stage::new("seen");
    let target = stage.target("bob");
    let plan = stage.plan(&target, "bob", "bob", "Bob");
    stage
        .wait(target.add(&plan, &entry(&plan), &anything))
        .expect("added");
    let other = stage.plan(&target, "bob-2", "bob", "B.*");
    let check = |document: &Document| other.check(document, &entry(&other), 0).map(drop);
    let refused = stage.wait(target.add(&other, &entry(&other), &check));
    let refused = refused.expect_err("a conflict");
    assert!(
        refused
            .error()
            .contains("bob of bob matches the same requests"),
        "{refused}"
    );
}

//! The life of intercepts, and what two who want the same get.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use injector::hint::Failure;
use injector::manifest::istio::{Port, example, workload_objects};
use injector::model::NotRenewed;
use intercept_core::{Document, Intercept};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::rbac;
use super::stage::{INTERCEPT, PREPARED, Stage, anything, entry};
use super::support::{developer_server, now, wait_until};

/// What must be the same before and after; the rest counts changes.
fn lasting(object: &Value) -> Value {
    let mut object = object.clone();
    let managers: Vec<Value> = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| json!([entry["manager"], entry["fieldsV1"]]))
        .collect();
    object["metadata"] = json!({"labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"], "managers": managers});
    object
}

#[test]
fn an_intercept_lives_on_every_replica_and_leaves_nothing_behind() {
    let stage = Stage::new("whole-life");
    let before = lasting(&stage.plugin());
    let port = developer_server("bob's");
    let port = port.to_string();
    let running = stage.start(
        "bob",
        &[
            "intercept",
            "orders",
            "--port",
            &port,
            "--http-header=Coder=Bob",
        ],
    );
    running.is_live();
    assert!(
        running.stderr().contains("orders-bob live"),
        "{}",
        running.stderr()
    );
    assert!(
        running
            .stderr()
            .contains("-H 'Coder: Bob' http://orders.whole-life/"),
        "{}",
        running.stderr()
    );
    let entry = stage.entry("orders-bob").expect("written");
    assert_eq!(
        (&entry["owner"], &entry["cluster"]),
        (&json!("bob"), &json!("intercept|8080|orders-bob"))
    );
    assert_eq!(stage.clusters(), ["intercept-orders-bob"]);

    let listed = stage.run("alice", &["list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["tunnel"], "up", "{listed}");
    assert_eq!(listed[0]["namespace"], "whole-life");

    let seen = stage.run("bob", &["status", "orders-bob", "-o", "json"]);
    let seen: Value = serde_json::from_str(&seen.stdout).expect("JSON");
    assert_eq!(seen["replicas"], json!({"live": 2, "all": 2}), "{seen}");

    running.signal(Signal::INT);
    let end = running.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(lasting(&stage.plugin()), before);
    assert_eq!(stage.clusters(), [""; 0]);
    let mut events = stage.events();
    events.sort();
    assert_eq!(
        events,
        [
            "bob intercepts port 8080: header Coder is Bob (orders-bob)",
            "bob removed the intercept orders-bob of bob, port 8080",
        ]
    );
}

#[test]
fn two_developers_intercept_at_the_same_time_and_a_conflict_is_refused() {
    let stage = Stage::new("two");
    let bob = stage.live("bob");
    let refused = stage.run(
        "alice",
        &["intercept", "orders", "--port=1", "--http-header=Coder=B.*"],
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains(
            "orders-bob of bob matches the same requests, for example GET / with Coder: Bob"
        ),
        "{refused:?}"
    );
    let alice = stage.start(
        "alice",
        &[
            "intercept",
            "deploy/orders",
            "--port=1:80",
            "--http-header=Coder=Alice",
        ],
    );
    alice.is_live();
    bob.signal(Signal::TERM);
    assert_eq!(bob.end().code, Some(0));
    assert!(stage.entry("orders-alice").is_some() && stage.entry("orders-bob").is_none());
    alice.signal(Signal::TERM);
    assert_eq!(alice.end().code, Some(0));
}

#[test]
fn a_cluster_that_is_cleared_away_before_its_entry_is_there_comes_back() {
    let stage = Stage::new("held");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    let asked = AtomicUsize::new(0);
    // Asked a second time, it has its cluster, and its entry is about to be written.
    let check = |_: &Document| {
        if asked.fetch_add(1, Ordering::SeqCst) == 1 {
            let delete = ["-n", "held", "delete", "envoyfilter", "intercept-bob"];
            stage.server.must(&delete, None);
        }
        Ok(())
    };
    stage
        .wait(target.add("bob", &entry, 0, &check))
        .expect("added");
    assert_eq!(stage.clusters(), ["intercept-bob"]);
}

#[test]
fn a_cluster_that_somebody_is_about_to_clear_away_is_another_version_by_then() {
    let stage = Stage::new("version");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    let seen = Mutex::new(Value::Null);
    let check = |_: &Document| {
        let filter = stage
            .server
            .object("version", "envoyfilter", "intercept-bob");
        *seen.lock().expect("whole") = filter.unwrap_or_default();
        Ok(())
    };
    stage
        .wait(target.add("bob", &entry, 0, &check))
        .expect("added");
    let before = seen.into_inner().expect("whole");
    let after = stage.server.get("version", "envoyfilter", "intercept-bob");
    assert!(before["spec"].is_object());
    assert_eq!(after["spec"], before["spec"]);
    let version = |filter: &Value| filter["metadata"]["resourceVersion"].clone();
    assert_ne!(version(&after), version(&before));
}

/// As [`entry`], for the other port.
fn on_9090(first: &Intercept) -> Intercept {
    Intercept {
        port: 9090,
        cluster: "intercept|9090|bob".to_owned(),
        address: "f".repeat(32),
        ..first.clone()
    }
}

/// The workload has a second port.
fn prepare_9090(stage: &Stage) {
    let mut workload = stage.workload();
    let other = Port {
        number: 9090,
        services: Vec::new(),
        ..workload.ports[0].clone()
    };
    workload.ports.push(other);
    let mesh = example::install().mesh;
    let objects = workload_objects(&mesh, &workload, &example::plugin()).expect("rendered");
    let objects: Vec<Value> = objects
        .iter()
        .map(|object| object.value().clone())
        .collect();
    stage.server.apply_all(&objects);
}

/// Does the name's own object have this cluster at the moment?
fn has_cluster(stage: &Stage, cluster: &str) -> bool {
    let filter = stage
        .server
        .object(&stage.namespace, "envoyfilter", "intercept-bob");
    filter.is_some_and(|filter| {
        filter["spec"]
            .to_string()
            .contains(&format!("\"{cluster}\""))
    })
}

#[test]
fn a_name_that_goes_to_another_port_keeps_its_cluster_while_its_entry_is_there() {
    let stage = Stage::new("port");
    prepare_9090(&stage);
    let target = stage.target("bob");
    let first = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &first, 0, &anything))
        .expect("added");
    let seen = Mutex::new(Vec::new());
    let check = |document: &Document| {
        let is_there = document.intercepts.contains_key("bob");
        let has_it = has_cluster(&stage, &first.cluster);
        seen.lock().expect("whole").push((is_there, has_it));
        Ok(())
    };
    let second = on_9090(&first);
    stage
        .wait(target.add("bob", &second, 0, &check))
        .expect("added");
    let seen = seen.into_inner().expect("whole");
    assert_eq!(seen, [(true, true), (false, false)]);
    assert_eq!(stage.entry("bob").expect("there")["port"], 9090);
    assert!(has_cluster(&stage, &second.cluster));
}

#[test]
fn whoever_is_refused_a_name_leaves_the_cluster_of_the_one_that_has_it() {
    let stage = Stage::new("refusal");
    prepare_9090(&stage);
    let target = stage.target("bob");
    let first = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &first, 1, &anything))
        .expect("added");
    stage.remove_entry("bob");
    let asked = AtomicUsize::new(0);
    // Asked a second time, it has written its cluster, and the other one its entry.
    let check = |_: &Document| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(()),
        _ => {
            stage.put_entry("bob", &json!(first));
            Err(Failure::failed("taken", ""))
        }
    };
    let refused = stage.wait(target.add("bob", &on_9090(&first), 0, &check));
    assert_eq!(refused.expect_err("refused").error(), "taken");
    assert!(has_cluster(&stage, &first.cluster));
    let filter = stage.server.get("refusal", "envoyfilter", "intercept-bob");
    assert!(filter.to_string().contains("injector-relay-1."), "{filter}");
}

#[test]
fn a_cluster_that_was_written_over_before_its_entry_is_there_comes_back() {
    let stage = Stage::new("over");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    let asked = AtomicUsize::new(0);
    let other = json!([{"op": "replace", "path": "/spec/configPatches/0/patch/value/name", "value": "intercept|9090|bob"}]);
    let check = |_: &Document| {
        if asked.fetch_add(1, Ordering::SeqCst) == 1 {
            let patch = [
                "-n",
                "over",
                "patch",
                "envoyfilter",
                "intercept-bob",
                "--type=json",
                "-p",
            ];
            stage
                .server
                .must(&[&patch[..], &[&other.to_string()]].concat(), None);
            assert!(!has_cluster(&stage, &entry.cluster));
        }
        Ok(())
    };
    stage
        .wait(target.add("bob", &entry, 0, &check))
        .expect("added");
    assert!(has_cluster(&stage, &entry.cluster));
}

#[test]
fn a_cluster_that_somebody_deleted_is_put_back_while_its_entry_is_there() {
    let stage = Stage::new("mended");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 1, &anything))
        .expect("added");
    let mended = || stage.wait(target.mend("bob", &entry, 1)).expect("asked");
    let delete = || {
        let delete = ["-n", "mended", "delete", "envoyfilter", "intercept-bob"];
        stage.server.must(&delete, None);
    };
    let before = stage.server.get("mended", "envoyfilter", "intercept-bob");
    assert!(!mended());
    delete();
    assert!(mended());
    let after = stage.server.get("mended", "envoyfilter", "intercept-bob");
    assert_eq!(after["spec"], before["spec"]);
    delete();
    stage.remove_entry("bob");
    assert!(!mended());
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn a_developer_is_told_that_the_cluster_of_an_intercept_was_gone() {
    let stage = Stage::new("deleted");
    let bob = stage.live("bob");
    let delete = [
        "-n",
        "deleted",
        "delete",
        "envoyfilter",
        "intercept-orders-bob",
    ];
    stage.server.must(&delete, None);
    bob.says("its Envoy cluster was gone, and meanwhile the cluster answered; it is back");
    assert_eq!(stage.clusters(), ["intercept-orders-bob"]);
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn a_developer_who_may_not_put_a_cluster_back_is_told_once() {
    let stage = Stage::new("unmended");
    let bob = stage.live("bob");
    let less = json!([
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": ["networking.istio.io"], "resources": ["envoyfilters"], "verbs": ["get"]},
    ]);
    stage.server.apply_all(&[
        rbac::role("unmended", "less", less),
        rbac::binding("unmended", "bob", "Role", "less"),
    ]);
    for object in [
        ["rolebinding", "bob-injector-developer"],
        ["envoyfilter", "intercept-orders-bob"],
    ] {
        let delete = [&["-n", "unmended", "delete"][..], &object].concat();
        stage.server.must(&delete, None);
    }
    bob.says("its Envoy cluster is gone and cannot be put back (");
    stage.server.apply_all(&stage.developer("bob"));
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
}

#[test]
fn a_lease_is_renewed_for_its_own_tunnel_only_and_never_brings_an_entry_back() {
    let stage = Stage::new("renewed");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    let later = entry.expires + 60;
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage
        .wait(target.renew("bob", &entry.address, later))
        .expect("renewed");
    assert_eq!(stage.entry("bob").expect("there")["expires"], later);
    let filter = stage.server.get("renewed", "envoyfilter", "intercept-bob");
    assert_eq!(
        filter["metadata"]["annotations"]["injector.dev/expires"],
        later.to_string()
    );

    let other = "f".repeat(32);
    assert_eq!(
        stage.wait(target.renew("bob", &other, later)),
        Err(NotRenewed::Taken("bob".to_owned()))
    );
    assert!(
        stage
            .wait(target.remove("bob", &other))
            .expect("asked")
            .is_none()
    );
    assert_eq!(stage.clusters(), ["intercept-bob"]);

    stage.remove_entry("bob");
    assert_eq!(
        stage.wait(target.renew("bob", &entry.address, later)),
        Err(NotRenewed::Removed)
    );
    assert_eq!(stage.entry("bob"), None);
    assert!(
        stage
            .wait(target.remove("bob", &entry.address))
            .expect("asked")
            .is_none()
    );
    stage.wait(target.clear("bob")).expect("cleared");
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn a_live_lease_is_shortened_to_a_limit_that_is_lowered_and_a_forbidden_intercept_ends() {
    let stage = Stage::new("lowered");
    let running = stage.start("bob", &[INTERCEPT, &["--lease=8h", "--verbose"]].concat());
    running.is_live();
    stage.limit(&json!({"max_lease_seconds": 3_600}));
    running.says("the operator now allows leases of at most 1 h");
    running.says("lease renewed for 1 h");
    let entry = stage.entry("orders-bob").expect("there");
    let expires = entry["expires"].as_u64().expect("a time");
    assert!(expires <= now() + 3_600, "{entry}");
    let filter = stage
        .server
        .get("lowered", "envoyfilter", "intercept-orders-bob");
    assert_eq!(
        filter["metadata"]["annotations"]["injector.dev/expires"],
        expires.to_string()
    );
    stage.limit(&json!({"header_names": ["x-intercept-id"]}));
    let end = running.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    let why =
        "the operator has changed the limits: orders-bob.headers[0].name: `Coder` is not among";
    assert!(end.stderr.contains(why), "{end:?}");
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn what_a_policy_of_somebody_else_refuses_is_told_in_its_words() {
    let stage = Stage::new("refused");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    let place =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "refused"}}});
    let rule = json!({"apiGroups": ["extensions.istio.io"], "apiVersions": ["*"], "resources": ["wasmplugins"], "operations": ["UPDATE"]});
    let object = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "refused"}, "spec": spec});
    // Without a reason of its own a policy refuses with `Invalid`, as the API server does a patch whose test does not hold.
    stage.server.apply_all(&[
        object("ValidatingAdmissionPolicy", json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": "not today"}]})),
        object("ValidatingAdmissionPolicyBinding", json!({"policyName": "refused", "validationActions": ["Deny"], "matchResources": place})),
    ]);
    let renewed = || stage.wait(target.renew("bob", &entry.address, entry.expires));
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
fn of_many_who_ask_at_the_same_moment_each_is_checked_against_those_before() {
    let stage = Stage::new("race");
    let target = stage.target("bob");
    // Five of them want the same requests; only the first may have them.
    let wanted: Vec<(String, Intercept)> = (0..10)
        .map(|number| {
            let name = format!("bob-{number}");
            let entry = entry(&name, "bob", if number < 5 { "same" } else { &name });
            (name, entry)
        })
        .collect();
    let outcomes = stage.wait(async {
        let adding = wanted.iter().map(|(name, entry)| {
            let target = &target;
            async move {
                let check = |document: &Document| match intercept_overlap::check(
                    document,
                    name,
                    entry,
                    now(),
                )
                .as_slice()
                {
                    [] => Ok(()),
                    _ => Err(Failure::failed("conflict", "")),
                };
                target.add(name, entry, 0, &check).await.is_ok()
            }
        });
        futures_util::future::join_all(adding).await
    });
    assert_eq!(
        outcomes[..5].iter().filter(|added| **added).count(),
        1,
        "{outcomes:?}"
    );
    assert!(outcomes[5..].iter().all(|added| *added), "{outcomes:?}");
    assert_eq!(stage.clusters().len(), 6);
    let entries = stage.plugin()["spec"]["pluginConfig"]["intercepts"]
        .as_object()
        .expect("a map")
        .len();
    assert_eq!(entries, 6);
}

#[test]
fn a_workload_that_nobody_prepared_is_not_prepared_on_the_quiet() {
    let stage = Stage::new("unprepared");
    stage.server.must(
        &["-n", "unprepared", "delete", "wasmplugin", PREPARED],
        None,
    );
    let refused = stage.run("bob", &["intercept", "orders", "--port=1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("injector install -n unprepared --workload deployment/orders"),
        "{refused:?}"
    );
}

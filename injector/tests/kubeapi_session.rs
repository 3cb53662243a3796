//! Intercepts of a mesh, against a real API server with etcd, Istio's custom resources, the roles and the admission policies of `injector install`. No node, no istiod and no
//! proxy: a kubelet of our own forwards ports to relays and Envoys' admin interfaces in this process. `tests/cluster/build` provides the binaries.

mod support;

mod kubeapi {
    pub mod kubelet;
    pub mod server;
    pub mod stage;
    pub mod wire;
    pub(super) use super::support;
}

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use injector::backend::{Live, NotRenewed};
use injector::hint::Failure;
use injector::manifest::istio::install::cluster_objects;
use injector::manifest::istio::{example, workload_objects};
use injector::tunnel::developer::{Developer, Event, Local, LocalProtocol, Tcp, run};
use injector::tunnel::{Secret, relay};
use intercept_core::{Document, Intercept, MatchHeader};
use kubeapi::stage::Stage;
use kubeapi::wire::Wire;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{developer_server, now, wait_until};

fn entry(name: &str, owner: &str, coder: &str) -> Intercept {
    Intercept {
        port: 8080,
        cluster: format!("intercept|8080|{name}"),
        address: "0123456789abcdef".repeat(2),
        owner: owner.to_owned(),
        created: now(),
        headers: vec![MatchHeader {
            name: "Coder".to_owned(),
            value: coder.to_owned(),
        }],
        baggage: Vec::new(),
        path: None,
        expires: now() + 3_600,
    }
}

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

fn anything(_: &Document) -> Result<(), Failure> {
    Ok(())
}

#[test]
fn kubeapi_an_intercept_lives_on_every_replica_and_leaves_nothing_behind() {
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
fn kubeapi_two_developers_intercept_at_the_same_time_and_a_conflict_is_refused() {
    let stage = Stage::new("two");
    let bob = stage.start(
        "bob",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Bob"],
    );
    bob.is_live();
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
fn kubeapi_an_entry_that_was_removed_does_not_come_back() {
    let stage = Stage::new("removed");
    let bob = stage.start(
        "bob",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Bob"],
    );
    bob.is_live();
    stage.remove_entry("orders-bob");
    let end = bob.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr.contains("somebody removed this intercept"),
        "{end:?}"
    );
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn kubeapi_whoever_loses_an_intercept_is_told_who_removed_it() {
    let stage = Stage::new("told");
    let bob = stage.start(
        "bob",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Bob"],
    );
    bob.is_live();
    let left = stage.run("admin", &["leave", "--force", "orders-bob"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    let end = bob.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr
            .contains("orders-bob: admin removed this intercept; it is not brought back"),
        "{end:?}"
    );
}

#[test]
fn kubeapi_a_cluster_without_an_entry_is_cleared_away_with_its_lease() {
    let stage = Stage::new("orphan");
    let target = stage.target("bob");
    let mut entry = entry("bob", "bob", "Bob");
    entry.expires = now() + 600;
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage.remove_entry("bob");
    stage.run("bob", &["list"]);
    assert_eq!(stage.clusters(), ["intercept-bob"], "its lease is not over");
    let over = format!("injector.dev/expires={}", now() - 700);
    let arguments = [
        "-n",
        "orphan",
        "annotate",
        "--overwrite",
        "envoyfilter",
        "intercept-bob",
        &over,
    ];
    stage.server.must(&arguments, None);
    stage.run("bob", &["list"]);
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn kubeapi_a_cluster_that_is_cleared_away_before_its_entry_is_there_comes_back() {
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
fn kubeapi_a_cluster_that_somebody_is_about_to_clear_away_is_another_version_by_then() {
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

#[test]
fn kubeapi_a_lease_is_renewed_for_its_own_tunnel_only_and_never_brings_an_entry_back() {
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
fn kubeapi_of_many_who_ask_at_the_same_moment_each_is_checked_against_those_before() {
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
                let check = |document: &Document| match injector::conflict::check(
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
fn kubeapi_a_developer_who_may_not_write_envoy_filters_shares_a_relays_cluster() {
    let stage = Stage::new("shared");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
    "metadata": {"name": "less", "namespace": "shared"},
    "rules": [
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": ["networking.istio.io"], "resources": ["envoyfilters"], "verbs": ["get"]},
    ]});
    stage.server.apply(&role);
    stage.bind("eve", "role", "less");
    stage.bind_tunnel("eve");
    let eve = stage.start(
        "eve",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Eve"],
    );
    eve.is_live();
    assert!(
        eve.stderr()
            .contains("applied, not verified (you may not forward ports"),
        "{}",
        eve.stderr()
    );
    let cluster = stage.entry("orders-eve").expect("written")["cluster"].clone();
    assert!(
        ["intercept|relay-0|8080", "intercept|relay-1|8080"]
            .map(|name| json!(name))
            .contains(&cluster),
        "{cluster}"
    );
    assert_eq!(stage.clusters(), [""; 0]);
    eve.signal(Signal::INT);
    assert_eq!(eve.end().code, Some(0));
    assert_eq!(stage.entry("orders-eve"), None);
}

#[test]
fn kubeapi_a_developer_without_rights_is_told_which_one_is_missing() {
    let stage = Stage::new("rights");
    stage.bind("mallory", "clusterrole", "injector-developer");
    let refused = stage.run("mallory", &["intercept", "orders", "--port=1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("you may not get pods/portforward injector-relay-0 in injector-system"),
        "{refused:?}"
    );
    assert_eq!(
        stage.plugin()["spec"]["pluginConfig"].get("intercepts"),
        None
    );
}

#[test]
fn kubeapi_a_developer_who_may_not_read_envoy_filters_is_told_that_it_takes_that() {
    let stage = Stage::new("unread");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
    "metadata": {"name": "less", "namespace": "unread"},
    "rules": [
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list", "patch"]},
    ]});
    stage.server.apply(&role);
    stage.bind("eve", "role", "less");
    stage.bind_tunnel("eve");
    for words in [
        &["intercept", "orders", "--port=1", "--http-header=Coder=Eve"][..],
        &["explain", "orders", "/"],
    ] {
        let refused = stage.run("eve", words);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for expected in ["envoyfilters", "\n\nhint: "] {
            assert!(refused.stderr.contains(expected), "{refused:?}");
        }
    }
    assert_eq!(
        stage.plugin()["spec"]["pluginConfig"].get("intercepts"),
        None
    );
}

#[test]
fn kubeapi_a_workload_that_nobody_prepared_is_not_prepared_on_the_quiet() {
    let stage = Stage::new("unprepared");
    stage.server.must(
        &[
            "-n",
            "unprepared",
            "delete",
            "wasmplugin",
            kubeapi::stage::PREPARED,
        ],
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

#[test]
fn kubeapi_a_replica_that_does_not_take_it_is_named_and_a_new_one_is_waited_for() {
    let stage = Stage::new("replicas");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    let wait = |seconds| {
        let cluster = Some("intercept|8080|bob");
        stage.wait(target.wait(
            "bob",
            Some(&entry.address),
            cluster,
            Duration::from_secs(seconds),
            &|_| {},
        ))
    };
    assert_eq!(wait(20), Live::Verified);
    stage.stuck.store(true, Ordering::SeqCst);
    stage.add_replica("orders-3");
    let Live::NotVerified { why } = wait(3) else {
        panic!("verified")
    };
    assert!(
        why.starts_with("2/3 replicas after 3 s; orders-3: "),
        "{why}"
    );
    stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(wait(20), Live::Verified);
}

#[test]
fn kubeapi_where_no_pod_is_nobody_is_waited_for_at_an_end() {
    let stage = Stage::new("deserted");
    let target = stage.target("bob");
    let gone = |seconds| {
        let time = Duration::from_secs(seconds);
        let started = Instant::now();
        let live = stage.wait(target.wait("bob", None, None, time, &|_| {}));
        (live, started.elapsed())
    };
    stage.delete_replica("orders-1");
    // One that was evicted stays, and runs nowhere.
    let evicted = json!({"status": {"phase": "Failed", "containerStatuses": null}});
    stage
        .server
        .status(Some("deserted"), "pod", "orders-2", &evicted);
    assert_eq!(gone(20).0, Live::Verified);
    stage.delete_replica("orders-2");
    let (live, took) = gone(20);
    assert_eq!(live, Live::Verified);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn kubeapi_leave_removes_ones_own_and_somebody_elses_only_by_force_and_right() {
    let stage = Stage::new("leaving");
    for name in ["bob-one", "bob-two"] {
        stage
            .wait(
                stage
                    .target("bob")
                    .add(name, &entry(name, "bob", name), 0, &anything),
            )
            .expect("added");
    }
    let refused = stage.run("alice", &["leave", "bob-one"]);
    assert!(
        refused
            .stderr
            .contains("bob-one: claimed by bob, not by alice"),
        "{refused:?}"
    );
    // The admission policies hold a developer who says --force.
    let forced = stage.run("alice", &["leave", "--force", "bob-one"]);
    assert_eq!(forced.code, Some(1), "{forced:?}");
    assert!(
        forced
            .stderr
            .contains("only your own entries may be removed"),
        "{forced:?}"
    );
    let operator = stage.run("admin", &["leave", "--force", "bob-one"]);
    assert_eq!(operator.stdout, "bob-one removed\n", "{operator:?}");
    let mine = stage.run("bob", &["leave", "--all"]);
    assert_eq!(mine.stdout, "bob-two removed\n", "{mine:?}");
    assert_eq!(stage.clusters(), [""; 0]);
    assert_eq!(
        stage.plugin()["spec"]["pluginConfig"].get("intercepts"),
        None
    );
}

#[test]
fn kubeapi_whoever_sees_a_leftover_clears_it_away() {
    let stage = Stage::new("leftover");
    let mut over = entry("old", "bob", "Old");
    over.expires = now() - 590;
    stage.put_entry("old", &json!(over));
    stage.run("alice", &["list"]);
    assert!(stage.entry("old").is_some(), "ten minutes are not over");
    over.expires = now() - 700;
    stage.put_entry("old", &json!(over));
    wait_until(
        || {
            // The policies' clock is a Lease that the API server renews every ten seconds, and writes only after its start.
            stage.run("alice", &["list"]);
            stage.entry("old").is_none()
        },
        || "the leftover is still there".to_owned(),
    );
    assert_eq!(
        stage.events(),
        ["alice cleared away the intercept old of bob, whose lease is over"]
    );
}

#[test]
fn kubeapi_a_leftover_that_may_not_go_keeps_no_other_one() {
    let stage = Stage::new("kept");
    let target = stage.target("alice");
    // The first in the order of names. Its entry is over and its cluster, as far as can be told, is not: nobody else may remove that one.
    let mut over = entry("a-alice", "alice", "Alice");
    stage
        .wait(target.add("a-alice", &over, 0, &anything))
        .expect("added");
    over.expires = now() - 700;
    stage.put_entry("a-alice", &json!(over));
    let mut own = entry("orders-bob", "bob", "Bob");
    own.expires = now() - 700;
    stage.put_entry("orders-bob", &json!(own));
    stage.run("bob", &["list"]);
    assert_eq!(stage.clusters(), ["intercept-a-alice"]);
    assert_eq!(stage.entry("orders-bob"), None);
}

#[test]
fn kubeapi_a_replica_that_refuses_the_configuration_is_told_at_once() {
    let stage = Stage::new("refused");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage.stuck.store(true, Ordering::SeqCst);
    stage.add_replica("orders-3");
    stage.refusing.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let live = stage.wait(target.wait(
        "bob",
        Some(&entry.address),
        Some("intercept|8080|bob"),
        Duration::from_secs(60),
        &|_| {},
    ));
    let Live::NotVerified { why } = live else {
        panic!("verified")
    };
    assert!(
        why.starts_with(
            "orders-3: Envoy rejected the configuration (cluster_manager.cds.update_rejected): "
        ),
        "{why}"
    );
    assert!(started.elapsed() < Duration::from_secs(30), "{why}");
}

#[test]
fn kubeapi_somebody_elses_refused_cluster_ends_no_waiting() {
    let stage = Stage::new("others");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage.refusing.store(true, Ordering::SeqCst);
    let live = stage.wait(target.wait(
        "bob",
        Some(&entry.address),
        Some("intercept|bob"),
        Duration::from_secs(20),
        &|_| {},
    ));
    assert_eq!(live, Live::Verified);
}

#[test]
fn kubeapi_a_developer_with_one_relay_of_two_uses_that_one() {
    let stage = Stage::new("onerelay");
    stage.bind("carol", "clusterrole", "injector-developer");
    let one = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
    "metadata": {"name": "one-relay", "namespace": "injector-system"},
    "rules": [
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "pods/portforward"], "resourceNames": ["injector-relay-1"], "verbs": ["get", "create"]},
    ]});
    stage.server.apply(&one);
    stage.server.must(
        &[
            "-n",
            "injector-system",
            "create",
            "rolebinding",
            "carol-one-relay",
            "--role=one-relay",
            "--user=carol",
        ],
        None,
    );
    // Several names, so that the address of some would choose the other relay.
    for name in ["one", "two", "three", "four"] {
        let header = format!("--http-header=Coder={name}");
        let carol = stage.start(
            "carol",
            &["intercept", "orders", "--port=1", "--name", name, &header],
        );
        carol.is_live();
        let filter = stage
            .server
            .get("onerelay", "envoyfilter", &format!("intercept-{name}"));
        assert!(filter.to_string().contains("injector-relay-1."), "{filter}");
        carol.signal(Signal::INT);
        assert_eq!(carol.end().code, Some(0));
    }
}

#[test]
fn kubeapi_a_tunnel_for_which_one_relay_has_no_room_goes_to_the_other() {
    let stage = Stage::new("crowded");
    // Relays of its own; only an administrator may have clusters that lead to others than everybody's.
    let mut install = example::install();
    install.mesh.namespace = "crowded-system".to_owned();
    stage.server.namespace("crowded-system");
    let mut objects = cluster_objects(&install).expect("rendered");
    objects.retain(|object| object.kind() == "StatefulSet");
    objects.extend(
        workload_objects(&install.mesh, &stage.workload(), &example::plugin()).expect("rendered"),
    );
    for object in &objects {
        stage.server.apply(object.value());
    }
    let options = relay::Options {
        memory: 64 << 10,
        ..relay::Options::default()
    };
    let full = stage.server.relay("crowded-system", 0, options);
    stage
        .server
        .relay("crowded-system", 1, relay::Options::default());
    let (events_tx, mut events) = tokio::sync::mpsc::channel(16);
    stage.wait(async {
        let local = Local {
            port: 1,
            protocol: LocalProtocol::Auto,
        };
        let only = Developer::new("only", Secret::random(), local);
        tokio::spawn(run(only, Tcp(full), events_tx, std::future::pending()));
        let up = events.recv().await;
        assert!(matches!(up, Some(Event::Up { .. })), "{up:?}");
    });
    // Several, so that the address of some chooses the full one.
    let names = ["one", "two", "three", "four", "five"];
    let running = names.map(|name| {
        let header = format!("--http-header=Coder={name}");
        let arguments = ["intercept", "orders", "--port=1", "--name", name, &header];
        stage.start("admin", &arguments)
    });
    for (name, running) in names.iter().zip(running) {
        running.is_live();
        let name = format!("intercept-{name}");
        let filter = stage.server.get("crowded", "envoyfilter", &name);
        let text = filter.to_string();
        assert!(text.contains("injector-relay-1.crowded-system"), "{text}");
        running.signal(Signal::INT);
        assert_eq!(running.end().code, Some(0));
    }
}

#[test]
fn kubeapi_the_doctor_looks_into_the_replicas_and_at_what_is_left_over() {
    let stage = Stage::new("doctor");
    let examine = |user: &str| -> Vec<(String, String, String)> {
        let ran = stage.run(user, &["doctor", "orders", "-o", "json"]);
        let checks: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let checks = checks.as_array().expect("a list").iter();
        checks
            .map(|check| {
                (
                    text(check, "id"),
                    text(check, "outcome"),
                    text(check, "found"),
                )
            })
            .collect()
    };
    let of = |checks: &[(String, String, String)], id: &str| -> Vec<(String, String)> {
        let of = checks.iter().filter(|check| check.0 == id);
        of.map(|check| (check.1.clone(), check.2.clone())).collect()
    };
    let bob = examine("bob");
    let proxies = of(&bob, "proxies");
    assert_eq!(proxies[0].0, "good", "{bob:#?}");
    assert!(
        proxies[0].1.starts_with("2 proxies have the gate"),
        "{proxies:?}"
    );
    // alice may not forward ports to the workload's pods, and nobody who is no operator may read the module server.
    let alice = examine("alice");
    assert_eq!(of(&alice, "proxies")[0].0, "unknown", "{alice:#?}");
    assert_eq!(of(&alice, "module-digest")[0].0, "unknown", "{alice:#?}");
    stage.stuck.store(true, Ordering::SeqCst);
    stage.add_replica("orders-3");
    let entry = entry("lost", "bob", "Lost");
    stage.put_entry("lost", &json!(entry));
    let bob = examine("bob");
    let behind: Vec<_> = of(&bob, "proxies")
        .into_iter()
        .filter(|(outcome, _)| outcome == "bad")
        .collect();
    assert!(
        !behind.is_empty()
            && behind
                .iter()
                .all(|(_, found)| found.starts_with("pod orders-3: ")),
        "{bob:#?}"
    );
    assert_eq!(of(&bob, "leftovers")[0].0, "bad", "{bob:#?}");
}

#[test]
fn kubeapi_a_look_that_hangs_holds_up_nobody_who_wants_out() {
    let stage = Stage::new("hangs");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1", "--verbose"]);
    bob.is_live();
    let look = wire.catch("GET ", "/wasmplugins/");
    look.wait();
    let asked = Instant::now();
    bob.signal(Signal::INT);
    bob.says("ends: signal 2");
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(bob.end().code, Some(0));
    assert_eq!(stage.entry("orders-bob"), None);
}

#[test]
fn kubeapi_an_entry_that_comes_late_is_removed_as_well() {
    let stage = Stage::new("late");
    let wire = Wire::new(&stage);
    let write = wire.catch("PATCH ", "/wasmplugins/");
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1"]);
    write.wait();
    let before = wire.passed("GET ", "/wasmplugins/");
    bob.signal(Signal::INT);
    // Somebody has looked and found nothing.
    wait_until(
        || wire.passed("GET ", "/wasmplugins/") >= before + 2,
        || "nobody looks".to_owned(),
    );
    write.forward();
    assert_eq!(bob.end().code, Some(130));
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn kubeapi_an_error_that_passes_does_not_end_an_intercept_that_comes_back() {
    let stage = Stage::new("passes");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1"]);
    bob.is_live();
    let write = wire.catch("PATCH ", "/wasmplugins/");
    // As after a long sleep: the lease is over.
    let mut entry = stage.entry("orders-bob").expect("there");
    entry["expires"] = json!(now() - 60);
    stage.put_entry("orders-bob", &entry);
    write.wait();
    write.fail();
    bob.says("the intercept is back");
    let entry = stage.entry("orders-bob").expect("there");
    assert!(entry["expires"].as_u64() > Some(now()), "{entry}");
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
}

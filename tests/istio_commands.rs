//! The commands on a real mesh, apart from the routing of requests.
//!
//! Leftovers and notifications, permissions, the background, and the doctor's findings.

use std::time::Duration;

use harness::app::{App, Do};
use harness::client::{Ask, assert_untouched};
use harness::cluster::stage::BOB;
use harness::cluster::{Plan, Stage};
use harness::intercept::Developer;
use harness::{load, wait};
use serde_json::{Value, json};

/// The objects in a namespace that the injector creates or changes.
///
/// Without fields that every write changes, and without the text of intercepts, which stays when empty.
fn lasting(stage: &Stage) -> Value {
    let kinds = "intercepts,wasmplugins,envoyfilters,destinationrules,authorizationpolicies,peerauthentications,sidecars,virtualservices,deployments,services,serviceaccounts,configmaps,secrets,roles,rolebindings";
    let mut objects = stage.get(&[kinds]);
    for object in objects["items"].as_array_mut().expect("a list") {
        let managers: Vec<Value> = object["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|fields| fields["manager"] != "injector-controller")
            .map(|fields| json!([fields["manager"], fields["fieldsV1"]]))
            .collect();
        object["metadata"]["managedFields"] = managers.into();
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        for counter in ["resourceVersion", "generation"] {
            metadata.remove(counter);
        }
        if let Some(config) = object.pointer_mut("/spec/pluginConfig") {
            config.as_object_mut().expect("a map").remove("intercepts");
        }
    }
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn after_leave_every_object_is_as_before_and_events_tell_who_did_what() {
    let (stage, server) = (Stage::new("before").await, App::start("server").await);
    let before = lasting(&stage);
    let bob = stage
        .developer("bob")
        .intercept(&server, &["--http-header=Coder=Bob"])
        .await;
    let alice = stage
        .developer("alice")
        .intercept(&server, &["--http-header=Coder=Alice"])
        .await;
    assert_ne!(lasting(&stage), before);
    assert!(bob.leave().await.success());
    assert!(alice.leave().await.success());
    assert_eq!(stage.entries(), [""; 0]);
    // Requests that were cut off need the upstream clusters for another half minute.
    let left = wait::within(Duration::from_secs(60), "all is as before", async || {
        (lasting(&stage) == before).then_some(())
    });
    left.await;
    let events = stage.get(&["events"]);
    let events = events["items"].as_array().expect("a list").iter();
    let told: Vec<_> = events
        .filter(|event| event["involvedObject"]["kind"] == "Intercept")
        .map(|event| (&event["involvedObject"]["name"], &event["reason"]))
        .map(|(name, reason)| format!("{name} {reason}").replace('"', ""))
        .collect();
    for name in ["orders-bob", "orders-alice"] {
        for reason in ["Accepted", "Programmed", "Expired"] {
            let expected = format!("{name} {reason}");
            assert!(told.contains(&expected), "{expected}: {told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_intercept_is_told_what_is_missing() {
    let (stage, server) = (
        Plan::new("rights").bare().start().await,
        App::start("server").await,
    );
    let port = server.port().to_string();
    let arguments = [
        "intercept",
        "orders",
        "--port",
        port.as_str(),
        "--http-header=Coder=Bob",
    ];
    let refusal = |name: &str, groups: &[&str]| {
        let output = stage.user(name, groups).run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = refusal("bob", &[harness::cluster::DEVELOPERS]);
    let line = format!("injector install -n {} --workload", stage.namespace);
    assert!(
        text.contains("no operator has prepared") && text.contains(&line),
        "{text}"
    );
    stage.prepare(&[]);
    let text = refusal("mallory", &[]);
    assert!(
        text.contains("User \"mallory\" cannot list resource")
            && text.contains("--clusterrole=injector-developer"),
        "{text}"
    );
    assert!(stage.h1().get("/", &[BOB]).await.by() == "app");

    // The operator's limits hold for every user with the role.
    let output =
        stage
            .developer("bob")
            .run(&["intercept", "orders", "--port", &port, "--http-header=all"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("limits.allow_all"), "{text}");
}

/// Ends background intercepts if the test does not: they would outlive the cluster.
struct Left<'d>(&'d Developer);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.run(&["leave", "orders-bob"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intercept_goes_on_in_the_background_until_it_is_left() {
    let (stage, server) = (Stage::new("background").await, App::start("server").await);
    let (bob, port) = (stage.developer("bob"), server.port().to_string());
    let _left = Left(&bob);
    let begun = bob.run(&[
        "intercept",
        "orders",
        "--port",
        &port,
        "--http-header=Coder=Bob",
        "--detach",
    ]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    stage.wait_answered_by(BOB, "server").await;
    let log = bob.run(&["logs", "orders-bob"]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("GET /"), "{log}");
    let left = bob.run(&["leave", "orders-bob"]);
    assert_eq!(left.status.code(), Some(0), "{left:?}");
    assert_untouched(&stage.h1().get("/", &[BOB]).await, "after it");
    let log = bob.run(&["logs", "orders-bob", "-f"]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("orders-bob removed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_the_workloads_environment() {
    let (stage, server) = (Stage::new("environment").await, App::start("server").await);
    let (bob, port) = (stage.developer("bob"), server.port().to_string());
    let file = stage.dir().join("orders.env");
    let path = file.to_str().expect("a path in UTF-8");
    // The pods of the app set COUNTS; the environment of this machine does not.
    let ran = bob.run(&[
        "intercept",
        "orders",
        "--port",
        &port,
        "--http-header=Coder=Bob",
        "--env-file",
        path,
        "--",
        "sh",
        "-c",
        "echo it is $COUNTS",
    ]);
    let output = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(output.contains("it is /counts"), "{output}");
    let text = std::fs::read_to_string(file).expect("the file");
    assert!(text.lines().any(|line| line == "COUNTS=/counts"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_nothing_wrong_until_something_is() {
    let stage = Stage::new("doctor").await;
    let (bob, server) = (stage.developer("bob"), App::start("server").await);
    let failed = |what: &str| -> Vec<String> {
        let output = bob.run(&["doctor", "orders", "-o", "json"]);
        let checks: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let checks = checks["checks"]
            .as_array()
            .or(checks.as_array())
            .expect("checks")
            .iter();
        let failed = checks.filter(|check| check["outcome"] == "fail");
        let failed: Vec<String> = failed
            .map(|check| check["id"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(
            output.status.code(),
            Some(i32::from(!failed.is_empty())),
            "{what}: {output:?}"
        );
        failed
    };
    assert_eq!(failed("as installed"), [""; 0]);
    let _bob = stage.bob_intercepts(&server).await;
    stage.apply(json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "default"},
        "spec": {"egress": [{"hosts": ["./*", "istio-system/*"]}]}}));
    assert!(failed("hidden relays").contains(&"relay-egress".to_owned()));
    stage.wait_answered_by(BOB, "app").await;
    assert_each_runs_once(&stage).await;
    stage.run(&["delete", "sidecar", "default"]);
    assert_another_module_costs_nothing(&stage, || {
        failed("another module").contains(&"module-fetched".to_owned())
    })
    .await;
    stage.run(&["delete", "envoyfilter", "injector-deployment-orders"]);
    // A developer may not read EnvoyFilters; the proxies show it.
    wait::until("the doctor sees that the gate is gone", async || {
        failed("without the gate").contains(&"proxies".to_owned())
    })
    .await;
}

/// Prepares for a module other than the served one.
///
/// No agent takes it, the doctor reports it, and no request suffers.
async fn assert_another_module_costs_nothing(stage: &Stage, is_seen: impl Fn() -> bool) {
    stage.wait_answered_by(BOB, "server").await;
    let others = load::Load::start(&stage.h1(), 2, usize::MAX, |_| {
        Ask::get("/").to(Do::Sleep(20))
    });
    let other = stage.dir().join("other.wasm");
    std::fs::write(&other, b"\0asm\x01\0\0\0").expect("a writable directory");
    let other = other.to_str().expect("a path in UTF-8");
    stage.prepare(&["--allow-all", "--module", other, "--no-wait"]);
    wait::until("the doctor sees it", async || is_seen()).await;
    stage.wait_answered_by(BOB, "app").await;
    let others = others.stop().await;
    others.assert_no_errors();
    assert_eq!(others.answered_by("app"), others.answers.len());
}

/// Sends bob's requests while his machine is unreachable. The app would report any that run twice.
async fn assert_each_runs_once(stage: &Stage) {
    let ids = || (0..20).map(|number| format!("hidden-{number}"));
    let client = stage.h1();
    for id in ids() {
        let ask = Ask::get("/").header(BOB.0, BOB.1).id(&id);
        assert_eq!(client.must(ask).await.by(), "app", "{id}");
    }
    let executed = stage.executed();
    for id in ids() {
        assert_eq!(executed.get(&id), Some(&1), "{id}");
    }
}

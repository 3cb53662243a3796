//! Intercepts as Kubernetes objects on a real mesh.
//!
//! With kubectl, in a namespace that is deleted, and with proxies that do not report.

use std::time::Duration;

use harness::app::{App, Do};
use harness::client::{Ask, Client, assert_served, assert_untouched};
use harness::cluster::faults::Dropped;
use harness::cluster::stage::BOB;
use harness::cluster::{Plan, Stage};
use harness::wait;
use serde_json::{Value, json};

const ALICE: (&str, &str) = ("coder", "Alice");

/// Timeout for the deletion of a namespace.
const NAMESPACE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_an_intercept_and_ends_it() {
    let (stage, server) = (Stage::new("kubectl").await, App::start("server").await);
    // With the developers' role only.
    let alice = stage.developer("alice");
    let may = ["auth", "can-i", "get", "pods", "--subresource=portforward"];
    let kubeconfig = stage.kubeconfig("alice");
    let may = stage.cluster().kubectl.run_as(&kubeconfig, &may, "");
    assert!(may.is_err(), "{may:?}");
    let mut live = alice
        .intercept(&server, &["--http-header=Coder=Alice"])
        .await;
    let output = live.process.output();
    assert!(output.contains("orders-alice live"), "{output}");
    let listed = alice.run(&["list", "-o", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["replicas"], json!({"live": 2, "all": 2}));
    let shown = alice.run(&["status", "orders-alice"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("2/2"), "{shown}");

    let kubectl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        stage.kubectl_as("alice", &words, "")
    };
    for condition in ["Accepted", "Programmed"] {
        kubectl(&format!(
            "wait --for=condition={condition} intercept/orders-alice --timeout=30s"
        ));
    }
    let row = kubectl("get intercepts");
    for part in [
        "orders-alice",
        "orders",
        "8080",
        "alice",
        "Accepted",
        "True",
    ] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(!row.contains("<invalid>"), "{row}");
    let described = kubectl("describe intercept orders-alice");
    assert!(described.contains("2/2 replicas"), "{described}");
    assert!(described.contains("Normal"), "its Events: {described}");

    kubectl("delete intercept orders-alice --timeout=30s");
    kubectl("wait --for=delete intercept/orders-alice --timeout=30s");
    stage.wait_answered_by(ALICE, "app").await;
    let ended = live.process.wait().await;
    let output = live.process.output();
    assert_eq!(ended.code(), Some(1), "{output}");
    assert!(output.contains("this intercept was removed"), "{output}");
    assert_untouched(&stage.h1().get("/", &[ALICE]).await, "after it");
    assert_eq!(stage.entries(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_namespace_takes_its_intercepts() {
    let (ending, staying) = tokio::join!(Stage::new("ending"), Stage::new("staying"));
    let server = App::start("server").await;
    let mut bob = ending.bob_intercepts(&server).await;
    let _other = staying.bob_intercepts(&server).await;
    let client = staying.h1();
    let kubectl = &staying.cluster().kubectl;
    let namespace = ending.namespace.as_str();
    kubectl.must(&["delete", "namespace", namespace, "--wait=false"]);
    wait::within(NAMESPACE, "the namespace is gone", async || {
        assert_served(&client.get("/", &[BOB]).await, "orders-bob", "elsewhere");
        kubectl.run(&["get", "namespace", namespace]).err()
    })
    .await;
    // The namespace's deletion also removed the right to read anything in it.
    let ended = wait::within(NAMESPACE, "its command ends", async || bob.process.exited()).await;
    assert_eq!(ended.code(), Some(1), "{}", bob.process.output());
    // The controller continues.
    let alice = staying.developer("alice");
    let alice = alice
        .intercept(&server, &["--http-header=Coder=Alice"])
        .await;
    let output = alice.process.output();
    assert!(output.contains("orders-alice live"), "{output}");
    assert!(alice.leave().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_metrics_port_is_told() {
    let (stage, server) = (Stage::new("closed").await, App::start("server").await);
    let replicas = stage.replicas();
    let (pod, address) = replicas.first().expect("two");
    // Like a closed NetworkPolicy: no response at all.
    let rule = format!("--destination {address} --protocol tcp --dport 15090");
    let closed = Dropped::new(stage.cluster(), "FORWARD", &rule);
    let alice = stage.developer("alice");
    let live = alice
        .intercept(&server, &["--http-header=Coder=Alice"])
        .await;
    let output = live.process.output();
    let told = format!("applied, not verified (1/2 replicas; {pod}: {address}:15090: no answer");
    assert!(output.contains(&told), "{output}");
    let [status, reason, _] = stage.programmed("orders-alice");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("Unknown", "NotMeasured")
    );
    stage.wait_answered_by(ALICE, "server").await;
    let doctor = alice.run(&["doctor", "orders"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("15090"), "{doctor}");
    drop(closed);
    wait::until("all are measured", async || {
        stage.programmed("orders-alice")[0] == "True"
    })
    .await;
    assert!(live.leave().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn name_used_elsewhere_breaks_no_request() {
    let plan = Plan::new("elsewhere").port("http-admin", 81, 8081, "admin");
    let (stage, server) = (plan.start().await, App::start("server").await);
    let bob = stage.developer("bob");
    let [port, admin] = ["http", "http-admin"].map(|name| format!("{}:{name}", server.port()));
    let coder = ["--http-header=Coder=Bob", "--name=bob"];
    let mut first = bob.intercept_port(&port, &coder).await;
    stage.wait_answered_by(BOB, "server").await;
    let before = server.total();
    let held = [Ask::get("/"), Ask::post("/", 1_000)].map(|ask| {
        let ask = ask.header(BOB.0, BOB.1).to(Do::HoldAt("server"));
        let client = stage.h1();
        tokio::spawn(async move { client.must(ask).await })
    });
    wait::until("both are held", async || server.total() == before + 2).await;
    let second = bob
        .intercept_port(&admin, &[&coder[..], &["--replace"]].concat())
        .await;
    // It receives SIGTERM, and cuts them off after its grace.
    assert_eq!(first.process.wait().await.code(), Some(1));
    let [get, post] = held;
    let (get, post) = (get.await.expect("no panic"), post.await.expect("no panic"));
    assert_eq!((get.status.as_u16(), get.by()), (200, "app"));
    assert_eq!(post.status.as_u16(), 502, "{post:?}");
    assert!(post.header("x-intercept-error").is_some(), "{post:?}");
    let admin = Client::h1(stage.endpoint(81));
    wait::until("the other port is intercepted", async || {
        admin.get("/", &[BOB]).await.by() == "server"
    })
    .await;
    stage.wait_answered_by(BOB, "app").await;
    assert!(second.leave().await.success());
}

//! Every way to end an intercept with running requests, in the sandbox.
//!
//! Clients get the cluster's response, the developer's, or an error of ours, and nothing else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::app::{App, Do};
use harness::client::Ask;
use harness::endpoint::Endpoint;
use harness::leaving::{COMMANDS, KINDS, Place, SERVER, SIGNALS, Way};
use harness::mesh::{Mesh, Plan};
use harness::plugin::entry;
use harness::sandbox::Sandbox;
use harness::tunnel::{Machine, developer};
use harness::wait;
use injector::envoy::{Dir, EnvoyDirError};
use injector::model::Live;
use intercept_manifest::facts::Protocol;
use rustix::process::Signal;

/// Runs the cases in one sandbox, and checks that nothing is left.
async fn leave(ways: &[Way]) {
    let sandbox = Sandbox::start().await;
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let has_entry = |name: &str| {
        let document = Dir::open(sandbox.envoy()).and_then(|dir| dir.document());
        document.is_ok_and(|document| document.intercepts.contains_key(name))
    };
    let place = Place {
        developer: &|name| sandbox.developer(name),
        service: "",
        endpoint: Endpoint::from(sandbox.addr()),
        kinds: &KINDS,
        has_entry: &has_entry,
        uninstall: &|| {
            let operator = sandbox.developer("operator");
            operator.command(&["uninstall", "--force"])
        },
        scratch: scratch.path(),
    };
    place.leave(ways).await;
    let clusters = std::fs::read_to_string(sandbox.envoy().join("clusters.json"));
    let clusters = clusters.unwrap_or_default();
    for way in ways {
        // After a kill, only the lease ends the intercept.
        let is_left = clusters.contains(&format!("{}\"", way.intercept()));
        assert_eq!(is_left, *way == Way::Kill, "{way:?}: {clusters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_keeps_requests_whole() {
    leave(&SIGNALS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_keeps_requests_whole() {
    leave(&COMMANDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_keeps_requests_whole() {
    leave(&[Way::Uninstalled]).await;
}

/// Envoy crashes if an upstream cluster is removed before its workers have received it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_outlives_an_intercept_that_ends_at_once() {
    const STAYS: Duration = Duration::from_secs(1);
    let sandbox = Sandbox::start().await;
    let server = App::start(SERVER).await;
    let has_cluster = || {
        let clusters = std::fs::read_to_string(sandbox.envoy().join("clusters.json"));
        clusters.expect("there").contains("orders-bob")
    };
    for leaves in [false, true] {
        let bob = sandbox.developer("bob");
        let mut live = bob.intercept(&server, &["--http-header=Coder=Bob"]).await;
        let began = Instant::now();
        match leaves {
            true => assert!(bob.run(&["leave", "orders-bob"]).status.success()),
            false => live.process.signal(Signal::INT),
        }
        live.process.wait().await;
        assert!(!has_cluster());
        assert!(began.elapsed() > STAYS, "leaves: {leaves}");
    }
}

/// The same name on another port.
///
/// Requests running on the first port go to the program behind that one.
#[tokio::test(flavor = "multi_thread")]
async fn replacing_on_another_port_keeps_requests_whole() {
    let (app, other) = (App::start("app").await, App::start("other").await);
    let server = App::start(SERVER).await;
    let plan = Plan::of(&app).and("admin", &other, Protocol::Http);
    let mesh = plan.start().await;
    let (bob, port) = (mesh.developer("bob"), server.port());
    let mut first = bob
        .intercept_port(&format!("{port}:http"), &["--http-header=Coder=Bob"])
        .await;
    let client = mesh.h1();
    let held = Ask::get("/").header("coder", "Bob").to(Do::HoldAt(SERVER));
    let held = tokio::spawn(async move { client.must(held).await });
    wait::until("it is held", async || server.total() == 1).await;
    let flags = ["--http-header=Coder=Bob", "--replace"];
    let second = bob.intercept_port("1:admin", &flags).await;
    first.process.wait().await;
    let answer = held.await.expect("no panic");
    assert_eq!((answer.status.as_u16(), answer.by()), (200, "app"));
    assert_eq!(second.leave().await.code(), Some(0));
}

/// How long Envoy needs the upstream cluster after its requests are cut off.
///
/// The command leaves it for 1 s.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_requests_need_their_cluster_briefly() {
    const AT_ONCE: usize = 64;
    let app = App::start("app").await;
    let mesh = Mesh::of(&app).await;
    let control = mesh.files().workload().relay.control;
    for (round, delay) in [0, 1, 5, 20, 250].into_iter().enumerate() {
        let server = App::start(SERVER).await;
        let machine = Machine::up(control, developer(server.port())).await;
        let (name, entry) = entry("bob", mesh.port(), &machine.address(), "coder", "Bob");
        let added = mesh
            .files()
            .add(&name, &entry, |_| Ok::<_, EnvoyDirError>(()));
        added.expect("a writable directory");
        let live = mesh
            .files()
            .wait_live(&name, &entry.address, &entry.cluster, wait::DEADLINE);
        assert_eq!(live.await, Live::Verified);
        let client = mesh.h1();
        let asks = (0..AT_ONCE).map(|_| {
            let ask = Ask::get("/").header("coder", "Bob").to(Do::HoldAt(SERVER));
            let client = client.clone();
            tokio::spawn(async move { client.must(ask).await.status.as_u16() })
        });
        let asks: Vec<_> = asks.collect();
        wait::until("all are held", async || server.total() == AT_ONCE).await;
        mesh.files().remove(&name, None).expect("removed");
        mesh.files().wait_gone(&name, wait::DEADLINE).await;
        machine.running.abort();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        mesh.files()
            .clear_clusters(&[&entry.cluster])
            .expect("removed");
        let answers = join_all(asks).await;
        let whole = answers.iter().filter(|answer| matches!(answer, Ok(200)));
        let lost = AT_ONCE - whole.count();
        println!("round {round}: cluster removed after {delay} ms: {lost} of {AT_ONCE} lost");
        assert!(delay < 250 || lost == 0, "{delay} ms: {answers:?}");
    }
}

//! A controller that is killed, absent, disconnected or wrong about the time, on a real mesh.
//!
//! Running intercepts continue, nothing is left behind, and developers get an error. There is one controller, so there is one fault at a time.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::app::{App, Do};
use harness::binaries;
use harness::client::{Ask, Client};
use harness::cluster::faults::{self, Dropped};
use harness::cluster::stage::BOB;
use harness::cluster::{Plan, SYSTEM, Stage};
use harness::command::Process;
use harness::intercept::{Developer, Intercept};
use harness::load::{Executed, Load};
use harness::wait;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// The number of concurrent requests of a load.
const WORKERS: usize = 4;

/// Developers who come and go.
const OTHERS: [&str; 10] = [
    "alice", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ken",
];

/// Longer than the controller needs to notice a dead connection.
const NOTICED: Duration = Duration::from_secs(60);

/// Waits for exclusive use of the controller.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// How often to kill the controller: `CONTROLLER_KILLS=50` takes minutes.
fn kills() -> usize {
    let kills = std::env::var("CONTROLLER_KILLS");
    kills.map_or(10, |text| text.parse().expect("CONTROLLER_KILLS: a number"))
}

/// Loads of bob's requests, of every kind that either side may answer.
fn bobs(stage: &Stage) -> [Load; 2] {
    [("get", Ask::get("/")), ("post", Ask::post("/", 10_000))].map(|(name, ask)| {
        let ask = ask.header(BOB.0, BOB.1).to(Do::Sleep(20));
        let name = format!("bob-{name}-");
        Load::named(&name, &stage.h1(), WORKERS, usize::MAX, move |_| {
            ask.clone()
        })
    })
}

/// Ends the loads. Checks that only bob's server answered the requests.
async fn assert_bobs_only(loads: [Load; 2]) {
    for load in loads {
        let outcome = load.stop().await;
        println!("bob's: answered by {:?}", outcome.by());
        outcome.assert_no_errors();
        assert!(outcome.answered_by("server") > 50, "{:?}", outcome.by());
        assert_eq!(outcome.by().len(), 1, "{:?}", outcome.by());
    }
}

/// The results of developers who come and go.
#[derive(Default)]
struct Visits {
    executed: Executed,
    made: usize,
    turned_away: usize,
}

/// Intercepts and leaves in a loop, each time after a request arrived.
async fn come_and_go(stage: &Stage, name: &str, is_over: &AtomicBool) -> Visits {
    let (developer, server) = (stage.developer(name), App::start("server").await);
    let mut visits = Visits::default();
    while !is_over.load(Ordering::SeqCst) {
        let before = server.total();
        let Some(mut live) = intercept(&developer, name, &server).await else {
            visits.turned_away += 1;
            continue;
        };
        wait::within(NOTICED, &format!("{name} is reached"), async || {
            assert!(live.process.exited().is_none(), "{}", live.process.output());
            (server.total() > before).then_some(())
        })
        .await;
        assert!(live.leave().await.success(), "{name} leaves");
        visits.made += 1;
    }
    visits.executed = server.executed();
    visits
}

/// Intercepts; `None` after a timeout of the controller, which the error must name.
async fn intercept(developer: &Developer, name: &str, server: &App) -> Option<Intercept> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let (port, header) = (
        server.port().to_string(),
        format!("--http-header=Coder={name}"),
    );
    let command = developer.command(&["intercept", "orders", "--port", &port, &header]);
    let log = format!("{name}-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    let mut process = Process::start(&log, developer.home(), command);
    let what = format!("{name} lives or ends");
    let is_live = wait::within(NOTICED, &what, async || {
        let ended = process.exited();
        match process.output().contains("curl ") {
            true => Some(true),
            false => ended.map(|_| false),
        }
    });
    if is_live.await {
        return Some(Intercept { process });
    }
    let output = process.output();
    assert!(output.contains("no controller answers"), "{name}: {output}");
    None
}

/// Waits until no Intercept, no entry and, after half a minute, no upstream cluster is left.
async fn assert_nothing_left(stage: &Stage) {
    let left = || {
        let filters = stage.get(&["envoyfilters", "-l", "injector.dev/intercept"]);
        let filters = filters["items"].as_array().map_or(0, Vec::len);
        (stage.intercepts(), stage.entries(), filters)
    };
    let mut last = left();
    let gone = wait::within(Duration::from_secs(90), "nothing is left", async || {
        last = left();
        (last == (Vec::new(), Vec::new(), 0)).then_some(())
    });
    gone.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_controller_costs_nothing() {
    let (stage, server) = (Stage::new("killed").await, App::start("server").await);
    let _alone = alone().await;
    let bob = stage.bob_intercepts(&server).await;
    let bobs = bobs(&stage);
    let others = Load::start(&stage.h1(), WORKERS, usize::MAX, |number| {
        let coder = OTHERS[number % OTHERS.len()];
        Ask::get("/").header("coder", coder).to(Do::Sleep(20))
    });
    let is_over = AtomicBool::new(false);
    let visits = OTHERS.map(|name| come_and_go(&stage, name, &is_over));
    let killing = async {
        for round in 0..kills() {
            let before = faults::processes("controller");
            // By turns: after each exit of a process the kubelet waits longer, but not with a new pod.
            match round % 2 {
                0 => faults::kill(&before),
                _ => stage.cluster().delete_controller(),
            }
            stage.cluster().wait_controller(&before).await;
            let pause = rand::rng().random_range(0..2_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let (visits, ()) = tokio::join!(join_all(visits), killing);
    let mut theirs = Executed::new();
    let (mut made, mut turned_away) = (0, 0);
    for one in visits {
        (made, turned_away) = (made + one.made, turned_away + one.turned_away);
        for (id, count) in one.executed {
            *theirs.entry(id).or_default() += count;
        }
    }
    println!(
        "{} kills, {made} intercepts made and left, {turned_away} turned away",
        kills()
    );
    let others = others.stop().await;
    println!("theirs: answered by {:?}", others.by());
    others.assert_no_errors();
    others.assert_exact(&stage.executed(), &theirs, true);
    assert!(made >= kills() && others.answered_by("server") > 50);
    assert_bobs_only(bobs).await;
    assert!(bob.leave().await.success());
    assert_nothing_left(&stage).await;
}

/// Allows leases shorter than the schema does, until dropped.
struct ShortLeases<'s>(&'s Stage);

impl<'s> ShortLeases<'s> {
    fn new(stage: &'s Stage) -> Self {
        let short = Self(stage);
        short.allow(5);
        short
    }

    fn allow(&self, seconds: u32) {
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/leaseSeconds/minimum";
        let patch = json!([{"op": "replace", "path": path, "value": seconds}]).to_string();
        let patch = [
            "patch",
            "crd",
            "intercepts.injector.dev",
            "--type=json",
            "-p",
            &patch,
        ];
        self.0.run(&patch);
    }
}

impl Drop for ShortLeases<'_> {
    fn drop(&mut self) {
        self.allow(300);
    }
}

/// An Intercept of bob's on `Coder: NAME`, as for kubectl.
///
/// It has no tunnel: matching requests are marked, and the app answers.
fn bare(name: &str, lease: Duration) -> Value {
    let address = harness::app::sha256(name.as_bytes())[..32].to_owned();
    json!({
        "apiVersion": "injector.dev/v1alpha1",
        "kind": "Intercept",
        "metadata": {"name": name},
        "spec": {
            "owner": "bob",
            "workload": {"kind": "Deployment", "name": "orders"},
            "port": 8080,
            "match": {"headers": [{"name": "Coder", "value": name}]},
            "tunnel": {"relay": 0, "address": address},
            "leaseSeconds": lease.as_secs(),
            "renewTime": "2026-11-30T09:00:00Z",
        },
    })
}

/// Is a request with `Coder: NAME` matched? Panics if the request fails.
async fn is_matched(client: &Client, name: &str) -> bool {
    let answer = client.get("/", &[("coder", name)]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.by()),
        (200, "app"),
        "{name}"
    );
    answer.header("x-intercept") == Some(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_controller_ends_leases_when_back() {
    /// A lease of a day scaled down.
    const LEASE: Duration = Duration::from_secs(25);
    let (stage, server) = (Stage::new("absent").await, App::start("server").await);
    let _alone = alone().await;
    let bob = stage.bob_intercepts(&server).await;
    let (loads, client) = (bobs(&stage), stage.h1());
    let _short = ShortLeases::new(&stage);
    let created = Instant::now();
    for name in ["ends", "renewed"] {
        let object = bare(name, LEASE).to_string();
        // The API server takes a moment to apply the new schema.
        let kubeconfig = stage.kubeconfig("bob");
        wait::until("the API server takes it", async || {
            let create = ["create", "-f", "-"];
            let kubectl = &stage.cluster().kubectl;
            kubectl.run_as(&kubeconfig, &create, &object).is_ok()
        })
        .await;
        let intercept = format!("intercept/{name}");
        let wait = ["wait", "--for=condition=Programmed", &intercept];
        stage.kubectl_as("bob", &[&wait[..], &["--timeout=20s"]].concat(), "");
    }
    let absent = stage.cluster().without_controller().await;
    assert!(is_matched(&client, "ends").await, "the lease runs");
    let renewal = r#"{"spec": {"renewTime": "2026-11-30T10:00:00Z"}}"#;
    let patch = [
        "patch",
        "intercept",
        "renewed",
        "--type=merge",
        "-p",
        renewal,
    ];
    stage.kubectl_as("bob", &patch, "");
    wait::within(2 * LEASE, "both leases end", async || {
        let ends = is_matched(&client, "ends").await;
        (!ends && !is_matched(&client, "renewed").await).then_some(())
    })
    .await;
    // An expiry is in whole seconds, so a lease may end almost one early.
    let lasted = created.elapsed();
    assert!(lasted >= LEASE - Duration::from_secs(1), "{lasted:?}");
    let there = stage.intercepts();
    assert_eq!(
        there,
        ["ends", "orders-bob", "renewed"],
        "they are not ended"
    );

    absent.end().await;
    wait::within(NOTICED, "the renewed one is back", async || {
        is_matched(&client, "renewed").await.then_some(())
    })
    .await;
    wait::until("the other one is deleted", async || {
        stage.intercepts() == ["orders-bob", "renewed"]
    })
    .await;
    assert!(!is_matched(&client, "ends").await);
    assert_bobs_only(loads).await;
    stage.kubectl_as("bob", &["delete", "intercept", "renewed"], "");
    assert!(bob.leave().await.success());
    assert_nothing_left(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_connections_are_noticed() {
    let (stage, server) = (Stage::new("deaf").await, App::start("server").await);
    let _alone = alone().await;
    let bob = stage.bob_intercepts(&server).await;
    let loads = bobs(&stage);
    let cluster = stage.cluster();
    let pods = cluster.pods(SYSTEM, "app.kubernetes.io/name=injector-controller");
    let [(_, address)] = pods.as_slice() else {
        panic!("one controller: {pods:?}");
    };
    let dead = Dropped::connections(cluster, *address);
    assert!(!dead.is_empty(), "it watches");
    let (started, object) = (Instant::now(), bare("late", Duration::from_secs(600)));
    stage.kubectl_as("bob", &["create", "-f", "-"], &object.to_string());
    let wait = ["wait", "--for=condition=Programmed", "intercept/late"];
    stage.kubectl_as("bob", &[&wait[..], &["--timeout=60s"]].concat(), "");
    println!("programmed {:?} after its creation", started.elapsed());
    stage.kubectl_as("bob", &["delete", "intercept", "late"], "");
    drop(dead);
    assert_bobs_only(loads).await;
    assert!(bob.leave().await.success());
    assert_nothing_left(&stage).await;
}

/// A controller on this machine with a clock that is wrong by `shift`.
fn misled(stage: &Stage, shift: &str) -> Process {
    let token = ["create", "token", "injector-controller", "--duration=1h"];
    let kubectl = &stage.cluster().kubectl;
    let token = kubectl.must(&[&["-n", SYSTEM][..], &token].concat());
    let shown = kubectl.must(&["config", "view", "--minify", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    // By its clock, no certificate may be valid.
    let cluster = json!({"server": shown["clusters"][0]["cluster"]["server"], "insecure-skip-tls-verify": true});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let file = stage.dir().join("controller.conf");
    std::fs::write(&file, config.to_string()).expect("a writable directory");
    let mut command = Command::new(binaries::injector());
    command
        .arg("controller")
        .env("KUBECONFIG", file)
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME", shift)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Process::start(&format!("controller{shift}"), stage.dir(), command)
}

/// The library that shifts a program's clock.
fn faketime() -> PathBuf {
    let arch = std::env::consts::ARCH;
    let library = format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1");
    let library = PathBuf::from(library);
    assert!(
        library.is_file(),
        "{} is not here; run: tests/cluster/build tools",
        library.display()
    );
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_clock_changes_nothing() {
    let (stage, server) = (Stage::new("clock").await, App::start("server").await);
    let _alone = alone().await;
    let bob = stage.bob_intercepts(&server).await;
    let loads = bobs(&stage);
    let lease = || stage.get(&["intercept", "orders-bob"])["status"]["expires"].clone();
    let before = lease();
    let absent = stage.cluster().without_controller().await;
    for (shift, seconds) in [
        ("+5m", 300),
        ("-5m", -300),
        ("+1d", 86_400),
        ("-1d", -86_400),
    ] {
        let mut controller = misled(&stage, shift);
        controller.wait_output("watching").await;
        let carol = stage.developer("carol");
        let refused = carol.run(&[
            "intercept",
            "orders",
            "--port=1",
            "--http-header=Coder=Carol",
        ]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{shift}: {text}");
        let said = text.split_once("clock and the API server's differ by ");
        let said = said.and_then(|(_, rest)| rest.split(' ').next()?.parse::<i64>().ok());
        let ahead = -said.unwrap_or_else(|| panic!("{shift}: {text}"));
        assert!((ahead - seconds).abs() < 5, "{shift}: {text}");
        assert!(text.contains("hint: an operator sets the clocks"), "{text}");
        assert_eq!(stage.intercepts(), ["orders-bob"], "{shift}");
        assert_eq!(lease(), before, "{shift}");
        controller.kill();
    }
    absent.end().await;
    assert_bobs_only(loads).await;
    let carol = intercept(&stage.developer("carol"), "carol", &server).await;
    let carol = carol.expect("its clock is right");
    assert!(carol.leave().await.success());
    assert!(bob.leave().await.success());
    assert_nothing_left(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_objects_intercept_without_controller() {
    let (stage, server) = (
        Plan::new("printed").start().await,
        App::start("server").await,
    );
    let _alone = alone().await;
    let bob = stage.bob_intercepts(&server).await;
    let developer = stage.developer("bob");
    let port = server.port().to_string();
    let line = [
        "intercept",
        "orders",
        "--port",
        &port,
        "--http-header=Coder=Bob",
    ];
    let printed = developer.run(&[&line[..], &["--replace", "--dry-run", "-o", "json"]].concat());
    let mut printed: Value = serde_json::from_slice(&printed.stdout)
        .unwrap_or_else(|error| panic!("{error}: {printed:?}"));
    // The address of the open tunnel: the printed one has no secret.
    let address = |intercept: &Value| {
        let address = intercept["spec"]["tunnel"]["address"].as_str();
        address.expect("an address").to_owned()
    };
    let there = stage.get(&["intercept", "orders-bob"]);
    let printed_text = printed.to_string();
    let ours = printed_text.replace(&address(&printed["items"][0]), &address(&there));
    printed = serde_json::from_str(&ours).expect("JSON");
    let [asked, filter, plugin] = printed["items"].as_array().expect("a list").as_slice() else {
        panic!("{printed:#}");
    };
    assert_as_written(&stage, filter, plugin);

    let absent = stage.cluster().without_controller().await;
    let name = filter["metadata"]["name"].as_str().expect("a name");
    stage.run(&["delete", "envoyfilter", name]);
    let nothing = json!({"spec": {"pluginConfig": {"intercepts": "{}"}}}).to_string();
    let patch = ["patch", "wasmplugin", "injector-deployment-orders"];
    stage.run(&[&patch[..], &["--type=merge", "-p", &nothing]].concat());
    stage.wait_answered_by(BOB, "app").await;
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    stage.kubectl_as("bob", &apply, &asked.to_string());
    stage
        .cluster()
        .kubectl
        .apply(&[filter.clone(), plugin.clone()]);
    stage.wait_answered_by(BOB, "server").await;

    absent.end().await;
    let programmed = || stage.programmed("orders-bob")[0].clone();
    wait::within(NOTICED, "the controller takes it up", async || {
        (programmed() == "True").then_some(())
    })
    .await;
    stage.wait_answered_by(BOB, "server").await;
    assert!(bob.leave().await.success());
    assert_nothing_left(&stage).await;
}

/// Checks that the printed objects equal those that the controller has written.
fn assert_as_written(stage: &Stage, filter: &Value, plugin: &Value) {
    let name = filter["metadata"]["name"].as_str().expect("a name");
    let written = stage.get(&["envoyfilter", name]);
    assert_eq!(written["spec"], filter["spec"]);
    for part in ["labels", "annotations", "ownerReferences"] {
        assert_eq!(
            written["metadata"][part], filter["metadata"][part],
            "{part}"
        );
    }
    let entry = |plugin: &Value| {
        let text = plugin["spec"]["pluginConfig"]["intercepts"].as_str();
        let mut text: Value = serde_json::from_str(text.expect("a text")).expect("JSON");
        for key in ["created", "expires"] {
            text["orders-bob"][key] = Value::Null;
        }
        text
    };
    let written = stage.get(&["wasmplugin", "injector-deployment-orders"]);
    assert_eq!(entry(&written), entry(plugin));
}

//! Faults in a real mesh, which callers must not notice.
//!
//! Except for unsafe requests that were running on the developer's side.
//!
//! GETs, POSTs and gRPC calls continue all the while, and every request is counted at the developer's server and at the app. Relays are shared, so there is one fault at a
//! time, and all tests share one stage. After each fault its intercepts end, which needs a working control plane, and nothing is left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::app::{App, Do};
use harness::client::{Ask, Client};
use harness::cluster::{Plan, Stage, faults};
use harness::grpc::Grpc;
use harness::intercept::Intercept;
use harness::load::{self, Executed, Load, Outcome};
use harness::wait;
use tokio::sync::{Mutex, MutexGuard};

/// The number of concurrent requests of each kind.
const WORKERS: usize = 4;

/// Developers who come and go beside bob.
///
/// They may not read the replicas' state, so each command returns before the mesh is done.
const OTHERS: [&str; 10] = [
    "alice", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ken",
];

/// Waits for exclusive use of the cluster.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// `orders` with an HTTP and a gRPC port.
///
/// Waiting tests share it, so it is created once and removed with the last of them.
async fn stage() -> Arc<Stage> {
    static STAGE: Mutex<Weak<Stage>> = Mutex::const_new(Weak::new());
    /// Tests that do not overlap get one each, with a name that is not being removed.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut kept = STAGE.lock().await;
    if let Some(stage) = kept.upgrade() {
        return stage;
    }
    let name = format!("siege-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let plan = Plan::new(&name).replicas(3);
    let stage = Arc::new(plan.port("grpc", 9000, 9000, "app").start().await);
    *kept = Arc::downgrade(&stage);
    stage
}

/// `orders` with both ports intercepted by bob, under load.
struct Siege {
    /// First, so that they end before what they use.
    bobs: Vec<Intercept>,
    /// The name of intercepts, header and requests, which distinguishes sieges.
    name: &'static str,
    stage: Arc<Stage>,
    server: App,
    /// The addresses, looked up beforehand, because that needs the API server.
    web: Client,
    calls: Grpc,
    loads: BTreeMap<&'static str, Load>,
    /// Last, so that nothing of this siege continues when the next one begins.
    _alone: MutexGuard<'static, ()>,
}

/// The outcome of each kind of request.
struct Result {
    siege: &'static str,
    outcomes: BTreeMap<&'static str, Outcome>,
    app: Executed,
    server: Executed,
}

impl Siege {
    async fn begin(name: &'static str) -> Self {
        // The stage before the lock, because holding it keeps the stage alive.
        let stage = stage().await;
        let alone = alone().await;
        wait::within(Duration::from_secs(60), "two relays", async || {
            (stage.cluster().relays().len() == 2).then_some(())
        })
        .await;
        let server = App::start("server").await;
        let mut siege = Self {
            bobs: Vec::new(),
            name,
            web: stage.h1(),
            calls: Grpc::new(stage.endpoint(9000), &[("coder", name)]),
            stage,
            server,
            loads: BTreeMap::new(),
            _alone: alone,
        };
        for port in ["http", "grpc"] {
            let live = siege.intercept(port).await;
            siege.bobs.push(live);
        }
        siege.wait_for("server").await;
        siege.start();
        siege
    }

    /// bob intercepts a port, with this siege's header.
    async fn intercept(&self, port: &str) -> Intercept {
        let bob = self.stage.developer("bob");
        let (header, name) = (
            format!("--http-header=Coder={}", self.name),
            format!("--name={port}-{}", self.name),
        );
        let port = format!("{}:{port}", self.server.port());
        bob.intercept_port(&port, &[&header, &name]).await
    }

    /// Makes a request bob's.
    fn ask(&self, ask: Ask) -> Ask {
        ask.header("coder", self.name)
    }

    fn start(&mut self) {
        let siege = self.name;
        for (kind, ask) in [("get", Ask::get("/")), ("post", Ask::post("/", 10_000))] {
            let ask = self.ask(ask).to(Do::Sleep(20));
            let name = format!("{siege}-{kind}-");
            let load = Load::named(&name, &self.web, WORKERS, usize::MAX, move |_| ask.clone());
            self.loads.insert(kind, load);
        }
        let grpc = self.calls.clone();
        let load = Load::of(WORKERS, usize::MAX, move |number| {
            let id = format!("{siege}-grpc-{number}");
            let grpc = grpc.clone().with("test-id", &id);
            async move {
                let called = grpc.unary().await;
                // The health service has no pause of its own.
                tokio::time::sleep(Duration::from_millis(20)).await;
                load::judge_call(called)
            }
        });
        self.loads.insert("grpc", load);
    }

    /// Waits until that app answers new requests of every kind.
    async fn wait_for(&self, name: &str) {
        let (web, calls) = (&self.web, &self.calls);
        wait::within(
            Duration::from_secs(60),
            &format!("{name} answers all"),
            async || {
                let web = web.ask(self.ask(Ask::get("/"))).await;
                let is_web = web.is_ok_and(|answer| answer.by() == name);
                (is_web && calls.unary().await.is_ok_and(|by| by == name)).then_some(())
            },
        )
        .await;
    }

    /// Waits until every kind of load has sent this many more requests.
    async fn go_on(&self, more: usize) {
        for (kind, load) in &self.loads {
            let goal = load.sent() + more;
            wait::within(
                Duration::from_secs(60),
                &format!("{more} more of {kind}"),
                async || (load.sent() >= goal).then_some(()),
            )
            .await;
        }
    }

    /// Ends the load, then bob's intercepts.
    async fn end(&mut self) -> Result {
        let mut outcomes = BTreeMap::new();
        for (kind, load) in std::mem::take(&mut self.loads) {
            outcomes.insert(kind, load.stop().await);
        }
        let result = Result {
            siege: self.name,
            outcomes,
            app: self.stage.executed(),
            server: self.server.executed(),
        };
        result.tell();
        let bobs = std::mem::take(&mut self.bobs).into_iter();
        for left in join_all(bobs.map(Intercept::leave)).await {
            assert!(left.success(), "leaving after it: {left}");
        }
        self.assert_nothing_left().await;
        result
    }

    /// Waits until no Intercept, entry or upstream cluster of this siege is left.
    ///
    /// Upstream clusters take a while. A failed siege may leave some.
    async fn assert_nothing_left(&self) {
        let clusters = || {
            let filters = self.stage.get(&["envoyfilters"]);
            let filters = filters["items"].as_array().expect("a list").iter();
            let names = filters.filter_map(|filter| filter["metadata"]["name"].as_str());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        self.assert_none_of_ours(&self.stage.intercepts());
        self.assert_none_of_ours(&self.stage.entries());
        // Requests that were cut off still need them for a while.
        wait::within(Duration::from_secs(60), "no cluster is left", async || {
            let mut clusters = clusters().into_iter();
            (!clusters.any(|name| self.is_ours(&name))).then_some(())
        })
        .await;
    }

    fn is_ours(&self, name: &str) -> bool {
        let mut users = OTHERS.iter().chain([&self.name]);
        users.any(|user| name.ends_with(&format!("-{user}")))
    }

    fn assert_none_of_ours(&self, names: &[String]) {
        for name in names {
            assert!(!self.is_ours(name), "{name} is left");
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stage.tell();
        }
    }
}

impl Result {
    fn tell(&self) {
        for (kind, outcome) in &self.outcomes {
            let (errors, broken) = (outcome.errors.len(), outcome.broken.len());
            eprintln!(
                "{kind}: answered by {:?}, {errors} errors {:?}, {broken} broke off {:?}",
                outcome.by(),
                outcome.errors.values().next(),
                outcome.broken.values().next()
            );
        }
    }

    /// Checks that all counts match, and that only running requests failed, `interruptions` times.
    ///
    /// A response that has begun may break off, and unsafe requests may get an error, which says so if a part of ours could send it.
    fn assert_exact(&self, interruptions: usize) {
        for (kind, outcome) in &self.outcomes {
            let only = |all: &Executed| -> Executed {
                let prefix = format!("{}-{kind}-", self.siege);
                let ours = all
                    .iter()
                    .filter_map(|(id, count)| Some((id.strip_prefix(&prefix)?.to_owned(), *count)));
                ours.collect()
            };
            let is_safe = *kind == "get";
            outcome.assert_exact(&only(&self.app), &only(&self.server), is_safe);
            let under_way = interruptions * WORKERS;
            outcome.assert_interrupted(under_way, if is_safe { 0 } else { under_way });
        }
    }

    /// Checks that each error has our explanation, where a part of ours could send it.
    fn assert_explained(&self) {
        for (kind, outcome) in &self.outcomes {
            for error in outcome.errors.values() {
                assert!(error.contains("x-intercept-error"), "{kind}: {error}");
                assert!(*kind != "grpc" || error.starts_with("Internal"), "{error}");
            }
        }
    }

    /// Checks that both sides answered requests of every kind.
    fn assert_both_answered(&self) {
        for (kind, outcome) in &self.outcomes {
            assert!(
                outcome.answered_by("server") > 20 && outcome.answered_by("app") > 20,
                "{kind}: {:?}",
                outcome.by()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cli_costs_at_most_what_was_under_way() {
    let mut siege = Siege::begin("cli").await;
    siege.go_on(100).await;
    for mut bob in siege.bobs.drain(..) {
        bob.process.kill();
    }
    siege.wait_for("app").await;
    siege.go_on(100).await;
    // A new intercept replaces the one that is gone; the other one can still be left.
    let again = siege.intercept("http").await;
    siege.bobs.push(again);
    let bobs = ("coder", siege.name);
    siege.stage.wait_answered_by(bobs, "server").await;
    let left = siege.stage.developer("bob").run(&["leave", "grpc-cli"]);
    assert!(left.status.success(), "{left:?}");
    let result = siege.end().await;
    result.assert_exact(1);
    result.assert_both_answered();
    result.assert_explained();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_relay_process_whose_sidecar_lives_costs_at_most_what_was_under_way() {
    let mut siege = Siege::begin("process").await;
    siege.go_on(100).await;
    let relays = faults::processes("relay");
    assert_eq!(relays.len(), 2, "the relays of the cluster");
    faults::kill(&relays);
    siege.go_on(100).await;
    // The kubelet restarts the relay, and the CLI finds it.
    siege.wait_for("server").await;
    siege.go_on(100).await;
    let result = siege.end().await;
    result.assert_exact(1);
    result.assert_both_answered();
    result.assert_explained();
}

/// Runs `fault` under load, waits until requests reach the developer again, and checks.
async fn assert_survives(
    name: &'static str,
    interruptions: usize,
    fault: impl AsyncFnOnce(&Siege),
) -> Result {
    let mut siege = Siege::begin(name).await;
    siege.go_on(100).await;
    fault(&siege).await;
    siege.wait_for("server").await;
    siege.go_on(100).await;
    let result = siege.end().await;
    result.assert_exact(interruptions);
    result
}

/// Runs `kubectl` with these arguments.
fn kubectl(siege: &Siege, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    siege.stage.cluster().kubectl.must(&words)
}

/// Replaces all pods by the workload's strategy.
fn roll_out(siege: &Siege, workload: &str) {
    kubectl(siege, &format!("rollout restart {workload}"));
    kubectl(siege, &format!("rollout status {workload} --timeout=120s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_relay_pods_cost_at_most_what_was_under_way() {
    assert_survives("deleted", 1, async |siege| {
        let relays = "pods -n injector-system -l app.kubernetes.io/name=injector-relay";
        let uids = || {
            kubectl(
                siege,
                &format!("get {relays} -o jsonpath={{.items[*].metadata.uid}}"),
            )
        };
        let before = uids();
        kubectl(siege, &format!("delete {relays} --force --grace-period=0"));
        wait::within(Duration::from_secs(60), "two other relays", async || {
            let are_new = before.split(' ').all(|uid| !uids().contains(uid));
            (are_new && siege.stage.cluster().relays().len() == 2).then_some(())
        })
        .await;
        siege.go_on(50).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_scaled_to_none_and_back_cost_at_most_what_was_under_way() {
    assert_survives("scaled", 1, async |siege| {
        let scale = "-n injector-system scale statefulset/injector-relay --replicas";
        kubectl(siege, &format!("{scale}=0"));
        siege.wait_for("app").await;
        siege.go_on(50).await;
        kubectl(siege, &format!("{scale}=2"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_of_the_relays_costs_at_most_what_was_under_way() {
    assert_survives("relays", 2, async |siege| {
        roll_out(siege, "-n injector-system statefulset/injector-relay");
    })
    .await;
}

/// Both relays restart, one after the other; the POST is held longer than either waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn relay_roll_out_answers_held_post() {
    let mut siege = Siege::begin("held").await;
    let (web, ask) = (siege.stage.h1(), siege.ask(Ask::post("/", 16)));
    let ask = ask.to(Do::Sleep(60_000));
    let held = tokio::spawn(async move { web.ask(ask).await });
    siege.go_on(50).await;
    roll_out(&siege, "-n injector-system statefulset/injector-relay");
    let answer = held.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.header("x-intercept-error").is_some(), "{answer:?}");
    siege.wait_for("server").await;
    siege.end().await.assert_explained();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_istiod_costs_nothing() {
    assert_survives("istiod", 0, async |siege| {
        roll_out(siege, "-n istio-system deployment/istiod");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_for_30_seconds_costs_at_most_what_was_under_way() {
    let result = assert_survives("api", 1, async |siege| {
        let cluster = siege.stage.cluster();
        cluster.script("component", &["apiserver", "stop"]);
        let away = Instant::now();
        // Tunnels go through the API server: without it the app answers.
        siege.wait_for("app").await;
        while away.elapsed() < Duration::from_secs(30) {
            siege.go_on(10).await;
        }
        cluster.script("component", &["apiserver", "start"]);
        wait::within(
            Duration::from_secs(60),
            "the API server is back",
            async || cluster.kubectl.run(&["get", "--raw", "/readyz"]).ok(),
        )
        .await;
    })
    .await;
    // The relays are alive, and report what they lost.
    result.assert_explained();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_and_a_scale_up_of_the_workload_cost_nothing() {
    let mut siege = Siege::begin("rolling").await;
    siege.go_on(100).await;
    siege
        .stage
        .run(&["rollout", "restart", "deployment/orders"]);
    siege
        .stage
        .run(&["rollout", "status", "deployment/orders", "--timeout=180s"]);
    siege
        .stage
        .run(&["scale", "deployment/orders", "--replicas=4"]);
    siege
        .stage
        .run(&["rollout", "status", "deployment/orders", "--timeout=180s"]);
    wait::until("four replicas", async || siege.stage.replicas().len() == 4).await;
    siege.go_on(100).await;
    let result = siege.end().await;
    result.assert_exact(0);
    // A pod intercepts from its first request on.
    for (kind, outcome) in &result.outcomes {
        assert_eq!(outcome.answered_by("app"), 0, "{kind}");
    }
}

/// Intercepts and leaves this many times, each time after a request was answered.
///
/// Returns what was executed there.
async fn come_and_go(stage: &Stage, name: &str, rounds: usize) -> Executed {
    let (developer, server) = (stage.developer(name), App::start("server").await);
    let port = format!("{}:http", server.port());
    let header = format!("--http-header=Coder={name}");
    for round in 0..rounds {
        let before = server.total();
        let live = developer.intercept_port(&port, &[&header]).await;
        wait::until(&format!("round {round} reaches {name}"), async || {
            server.total() > before
        })
        .await;
        assert!(live.leave().await.success());
    }
    server.executed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_intercepts_that_come_and_go_cost_nothing() {
    let mut siege = Siege::begin("hundred").await;
    let others = Load::start(&siege.web, WORKERS, usize::MAX, |number| {
        let coder = OTHERS[number % OTHERS.len()];
        Ask::get("/").header("coder", coder).to(Do::Sleep(20))
    });
    let rounds = 100 / OTHERS.len();
    let rounds = OTHERS.map(|name| come_and_go(&siege.stage, name, rounds));
    let mut theirs = Executed::new();
    for (id, count) in join_all(rounds).await.into_iter().flatten() {
        *theirs.entry(id).or_default() += count;
    }
    let others = others.stop().await;
    eprintln!("theirs: answered by {:?}", others.by());
    others.assert_no_errors();
    others.assert_exact(&siege.stage.executed(), &theirs, false);
    assert!(others.answered_by("server") > 100 && others.answered_by("app") > 100);
    let result = siege.end().await;
    result.assert_exact(0);
    for (kind, outcome) in &result.outcomes {
        assert_eq!(outcome.answered_by("app"), 0, "{kind}: bob's stay bob's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_by_force_costs_no_request_that_is_safe() {
    let mut siege = Siege::begin("uninstall").await;
    siege.go_on(100).await;
    // From here on every request takes two attempts, with a pause between them.
    for mut bob in siege.bobs.drain(..) {
        bob.process.kill();
    }
    siege.wait_for("app").await;
    siege.go_on(100).await;
    let uninstall = ["uninstall", "-n", &siege.stage.namespace];
    let orders = ["--workload", "orders", "--force"];
    let cluster = siege.stage.cluster();
    cluster.injector(&[&uninstall[..], &orders].concat());
    siege.go_on(100).await;
    // Restores the stage for the next siege.
    siege.stage.prepare(&[]);
    let result = siege.end().await;
    result.assert_exact(1);
    result.assert_both_answered();
}

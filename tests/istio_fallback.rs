//! Ways to fail to reach the developer's machine that only a real mesh has.
//!
//! Its limits, its users' own rules, and its kubelet.

use std::time::Duration;

use harness::app::{App, Do};
use harness::client::{Answer, Ask, Client};
use harness::cluster::stage::BOB;
use harness::cluster::{Plan, Stage};
use harness::load::Load;
use harness::ports::Port;
use harness::{raw, wait};
use serde_json::json;

/// Many concurrent GETs and POSTs to a slow app: the mesh must not limit the retries.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_fall_back_to_a_slow_app() {
    let (stage, silent) = (Stage::new("slow").await, Port::reserve());
    let port = silent.number().to_string();
    let bob = stage.developer("bob");
    let _bob = bob
        .intercept_port(&port, &["--http-header=Coder=Bob"])
        .await;
    let client = stage.h1();
    for (kind, ask) in [("get", Ask::get("/")), ("post", Ask::post("/", 100_000))] {
        let ask = ask.header(BOB.0, BOB.1).to(Do::Sleep(300));
        let load = Load::named(&format!("{kind}-"), &client, 64, 192, move |_| ask.clone());
        let outcome = load.finish().await;
        outcome.assert_no_errors();
        assert_eq!(outcome.answered_by("app"), 192, "{kind}");
        let executed = stage.executed();
        for number in 0..192 {
            assert_eq!(
                executed.get(&format!("{kind}-{number}")),
                Some(&1),
                "{kind}-{number}"
            );
        }
    }
}

/// Rules of users for their own Services, all in one namespace.
#[tokio::test(flavor = "multi_thread")]
async fn users_rules_for_their_own_services_take_the_relay_from_nobody() {
    // Not for all Services: with that, the callers' sidecars would rightly eject the app as well.
    let rule = json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "all"},
        "spec": {"host": "*.injector-system.svc.cluster.local", "trafficPolicy": {
            "connectionPool": {"tcp": {"connectTimeout": "7s"}},
            "outlierDetection": {"consecutive5xxErrors": 3, "consecutiveGatewayErrors": 3, "interval": "1s", "baseEjectionTime": "60s", "maxEjectionPercent": 100}}}});
    let (stage, server) = (
        Plan::new("outlier").object(rule).start().await,
        App::start("server").await,
    );
    let _bob = stage.bob_intercepts(&server).await;
    let client = stage.h1();
    for round in 0..10 {
        let answer = client
            .must(Ask::get("/").header(BOB.0, BOB.1).to(Do::Status(500)))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.by()),
            (500, "server"),
            "{round}"
        );
    }
    for round in 0..20 {
        let answer = client.get("/", &[BOB]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.by()),
            (200, "server"),
            "{round}"
        );
    }
    assert_a_users_route_stays_behind_ours(&stage).await;
    assert_a_mirror_goes_to_the_app(&stage, &server).await;

    // The control: without our rules, the user's rule disables the relay.
    stage.run(&[
        "delete",
        "destinationrule",
        "injector-relay-0",
        "injector-relay-1",
    ]);
    wait::until("the relay is taken away", async || {
        let ask = Ask::get("/").header(BOB.0, BOB.1).to(Do::Status(500));
        client.must(ask).await.by() == "app"
    })
    .await;
}

/// A user's route for all requests, inserted first and after ours.
async fn assert_a_users_route_stays_behind_ours(stage: &Stage) {
    let route = json!({"name": "users", "match": {"prefix": "/"}, "route": {"cluster": "inbound|8080||"},
        "response_headers_to_add": [{"header": {"key": "x-users-route", "value": "taken"}}]});
    stage.apply(json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "users"},
        "spec": {"workloadSelector": {"labels": {"app": "orders"}}, "configPatches": [{"applyTo": "HTTP_ROUTE",
            "match": {"context": "SIDECAR_INBOUND", "routeConfiguration": {"portNumber": 8080}},
            "patch": {"operation": "INSERT_FIRST", "value": route}}]}}));
    let is_taken = |answer: &Answer| answer.header("x-users-route").is_some();
    stage
        .wait_answered("the user's route is there", "/", &[], is_taken)
        .await;
    let endpoint = stage.endpoint(80);
    for _ in 0..20 {
        let answer = Client::h1(endpoint.clone()).get("/", &[BOB]).await;
        assert_eq!((answer.by(), is_taken(&answer)), ("server", false));
    }
}

/// Callers mirror each request to the same Service.
async fn assert_a_mirror_goes_to_the_app(stage: &Stage, server: &App) {
    stage.apply(json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "orders"},
        "spec": {"hosts": ["orders"], "http": [{"route": [{"destination": {"host": "orders"}}], "mirror": {"host": "orders"}, "retries": {"attempts": 0}}]}}));
    let client = stage.h1();
    let post = |id: &str| Ask::post("/", 1_000).header(BOB.0, BOB.1).id(id);
    wait::until("requests are mirrored", async || {
        client.must(post("mirrored")).await;
        stage.executed().contains_key("mirrored")
    })
    .await;
    for id in ["one", "two", "three"] {
        assert_eq!(client.must(post(id)).await.by(), "server");
        wait::until("its copy was run", async || {
            stage.executed().contains_key(id)
        })
        .await;
        assert_eq!(stage.executed()[id], 1, "{id}: at the app");
        assert_eq!(server.executed_id(id), 1, "{id}: at the developer's");
    }
}

/// A request that reaches the app unmatched must reach the developer matched.
#[tokio::test(flavor = "multi_thread")]
async fn requests_near_the_header_limits_reach_the_developer_too() {
    let (stage, server) = (Stage::new("limits").await, App::start("server").await);
    let _bob = stage.bob_intercepts(&server).await;
    let client = stage.h1();
    let many = |count: usize| {
        (0..count).fold(Ask::get("/"), |ask, number| {
            ask.header(&format!("x-{number}"), "v")
        })
    };
    let large = |count: usize| Ask::get("/").header("x-large", vec![b'v'; count]);
    let mut refused = 0;
    for (what, ask) in (70..=100)
        .step_by(3)
        .map(|count| (count, many(count)))
        .chain(
            (40_000..=60_000)
                .step_by(4_000)
                .map(|count| (count, large(count))),
        )
    {
        // With one more header than the matched request will have.
        let plain = client.must(ask.clone().header("other", "Bob")).await;
        let matched = client.must(ask.header(BOB.0, BOB.1)).await;
        match plain.status.as_u16() {
            200 => assert_eq!(
                (matched.status.as_u16(), matched.by()),
                (200, "server"),
                "{what}: {:?}",
                matched.headers
            ),
            _ => refused += 1,
        }
    }
    assert!(refused > 0, "the limit was reached");
    assert!(refused < 10, "most passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_falls_back() {
    let (stage, server) = (Stage::new("expect").await, App::start("server").await);
    let mut bob = stage.bob_intercepts(&server).await;
    let endpoint = stage.endpoint(80);
    let answer = raw::expect_100(endpoint.clone(), "coder: Bob").await;
    assert!(answer.contains("answered-by: server"), "{answer}");
    server.kill().await;
    let answer = raw::expect_100(endpoint.clone(), "coder: Bob").await;
    assert!(
        answer.contains("answered-by: app"),
        "nothing listens: {answer}"
    );
    bob.process.kill();
    let answer = raw::expect_100(endpoint, "coder: Bob").await;
    assert!(answer.contains("answered-by: app"), "no tunnel: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelets_probe_never_leaves_the_cluster() {
    let plan = Plan::new("probes").permissive().replicas(1);
    let stage = plan
        .annotation("sidecar.istio.io/rewriteAppHTTPProbers", "false")
        .start()
        .await;
    let server = App::start("server").await;
    let bob = stage.developer("bob");
    let port = server.port().to_string();
    let refused = bob.run(&["intercept", "orders", "--port", &port, "--http-header=all"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("rewriteAppHTTPProbers"), "{text}");
    let here = || {
        let seen = server.seen();
        let probes = seen.iter().filter(|request| request.uri.path() == "/ready");
        probes.count()
    };

    // The control: probes do pass through the filter.
    let control = ["--http-header=user-agent=kube-probe/.*"];
    let control = bob.intercept(&server, &control).await;
    wait::until("a probe comes here", async || here() > 0).await;
    assert!(control.leave().await.success());

    // Without the CLI's checks: an intercept without conditions.
    let _bob = bob.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let mut there = stage.get(&["intercept", "orders-bob"]);
    there["spec"]["match"] = json!({});
    there["metadata"] = json!({"name": "orders-bob"});
    let file = stage.dir().join("all.json");
    std::fs::write(&file, there.to_string()).expect("a writable directory");
    let file = file.to_str().expect("a path in UTF-8");
    stage.run(&[
        "--as=bob",
        "--as-group=injector-developers",
        "replace",
        "--force",
        "-f",
        file,
    ]);
    stage.wait_answered_by(("any", "body"), "server").await;
    let (came, before) = (here(), probes(&stage));
    wait::until("five more probes", async || {
        // Each look starts a program, and the kubelet probes once a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        probes(&stage) >= before + 5
    })
    .await;
    assert_eq!(here(), came, "none of them left the cluster");
    assert_eq!(stage.replicas().len(), 1, "ready");
}

/// The kubelet's own count of its probes of the app.
fn probes(stage: &Stage) -> usize {
    let text = stage.run(&["get", "--raw", "/api/v1/nodes/node0/proxy/metrics/probes"]);
    let namespace = format!("namespace=\"{}\"", stage.namespace);
    let of_app = |line: &&str| {
        let words = [
            "prober_probe_total{",
            &namespace,
            "container=\"app\"",
            "pod=\"orders-",
            "probe_type=\"Readiness\"",
        ];
        words.iter().all(|word| line.contains(word))
    };
    let counts = text.lines().filter(of_app);
    counts
        .map(|line| line.rsplit(' ').next().expect("a count"))
        .map(|count| count.parse::<usize>().expect("a whole number"))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_behind_a_sidecars_own_listener_and_a_headless_service_fall_back_there() {
    // Istio forwards port 8080 to another port of the app.
    let sidecar = json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "orders"},
        "spec": {"workloadSelector": {"labels": {"app": "orders"}},
            "ingress": [{"port": {"number": 8080, "protocol": "HTTP", "name": "http"}, "defaultEndpoint": "127.0.0.1:8081"}]}});
    let headless = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
        "spec": {"clusterIP": "None", "selector": {"app": "orders"}, "ports": [{"name": "http", "port": 8080}]}});
    let plan = Plan::new("ingress")
        .object(sidecar)
        .object(headless)
        .listening(8081, "behind");
    let (stage, server) = (plan.start().await, App::start("server").await);
    let mut bob = stage.bob_intercepts(&server).await;
    let replica = stage.replicas().remove(0).1;
    let headless = stage.door_to(
        // The way a client connects that looked up a headless Service.
        (replica, 8080).into(),
        &format!("headless.{}", stage.namespace),
    );
    for endpoint in [stage.endpoint(80), headless.clone()] {
        let client = Client::h1(endpoint);
        let (others, bobs) = (client.get("/", &[]).await, client.get("/", &[BOB]).await);
        assert_eq!(others.by(), "behind", "{others:?}");
        assert_eq!(bobs.by(), "server", "{bobs:?}");
    }
    bob.process.kill();
    wait::until("the tunnel is gone", async || {
        Client::h1(stage.endpoint(80)).get("/", &[BOB]).await.by() != "server"
    })
    .await;
    for endpoint in [stage.endpoint(80), headless] {
        assert_eq!(
            Client::h1(endpoint).get("/", &[BOB]).await.by(),
            "behind",
            "not another program"
        );
    }
}

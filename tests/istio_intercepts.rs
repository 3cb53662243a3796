//! Intercepts on a real mesh: which app answers which request. Strict mTLS, callers with a sidecar.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::app::{App, Do};
use harness::binaries;
use harness::client::{Ask, Client, assert_served, assert_untouched};
use harness::cluster::stage::{BOB, Kind};
use harness::cluster::{Plan, SYSTEM, Stage};
use harness::command::Process;
use harness::examples::EXAMPLES;
use harness::grpc::Grpc;
use harness::wait;
use harness::websocket::Socket;
use serde_json::{Value, json};

const ALICE: (&str, &str) = ("coder", "Alice");

#[tokio::test(flavor = "multi_thread")]
async fn every_example_works_on_two_replicas() {
    let (stage, server) = (Stage::new("examples").await, App::start("server").await);
    let (client, bob) = (stage.h1(), stage.developer("bob"));
    for (line, path, header) in EXAMPLES {
        let typed = line.replace("--port 3000", &format!("--port {}", server.port()));
        let intercept = bob.start(bob.shell(&typed)).await;
        let id = intercept.automatic_id();
        let header = header.unwrap_or_else(|| {
            (
                "x-intercept-id",
                id.as_deref().expect("an automatic header"),
            )
        });
        // Enough to reach both replicas.
        for _ in 0..10 {
            assert_served(&client.get(path, &[header]).await, "orders-bob", line);
            if !line.contains("all") {
                assert_untouched(&client.get(path, &[]).await, line);
                assert_untouched(&client.get("/elsewhere", &[("coder", "Eve")]).await, line);
            }
        }
        assert_eq!(intercept.leave().await.code(), Some(0), "{line}");
        assert_untouched(&client.get(path, &[header]).await, line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_developers_and_one_for_everybody_else_get_what_is_theirs() {
    let stage = Stage::new("two").await;
    let (bobs, alices, carols) = (
        App::start("bobs").await,
        App::start("alices").await,
        App::start("carols").await,
    );
    let _bob = stage
        .developer("bob")
        .intercept(&bobs, &["--http-header=Coder=Bob"])
        .await;
    let _alice = stage
        .developer("alice")
        .intercept(&alices, &["--http-header=Coder=Alice"])
        .await;
    // An intercept of all requests needs a flag that confirms the overlap.
    let carol = stage.developer("carol");
    let port = carols.port().to_string();
    let refused = carol.run(&["intercept", "orders", "--port", &port, "--http-header=all"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(
        text.contains("orders-bob of bob") || text.contains("orders-alice of alice"),
        "{text}"
    );
    let _carol = carol
        .intercept(&carols, &["--http-header=all", "--allow-overlap"])
        .await;

    for (header, by) in [(BOB, "bobs"), (ALICE, "alices"), (("x", "y"), "carols")] {
        stage.wait_answered_by(header, by).await;
    }
    let listed = stage.developer("bob").run(&["list", "-o", "name"]);
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout).lines().count(),
        3,
        "{listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_told_apart_and_grpc_and_websocket_work() {
    let plan = Plan::new("ports")
        .port("http-admin", 81, 8081, "admin")
        .port("http-too", 82, 8080, "app")
        .port("grpc", 9000, 9000, "app");
    let stage = plan.start().await;
    let (server, calls) = (App::start("server").await, App::start("calls").await);
    let bob = stage.developer("bob");
    let several = bob.run(&[
        "intercept",
        "orders",
        "--port",
        "3000",
        "--http-header=Coder=Bob",
    ]);
    assert_eq!(several.status.code(), Some(2), "{several:?}");
    let http = bob
        .intercept_port(
            &format!("{}:http", server.port()),
            &["--http-header=Coder=Bob"],
        )
        .await;
    let grpc = bob
        .intercept_port(
            &format!("{}:9000", calls.port()),
            &["--http-header=Coder=Bob", "--name=calls-bob"],
        )
        .await;

    let [web, admin, too] = [80, 81, 82].map(|port| Client::h1(stage.endpoint(port)));
    let endpoint = stage.endpoint(9000);
    for _ in 0..10 {
        assert_served(&web.get("/", &[BOB]).await, "orders-bob", "http");
        // Two ports of the Service, one port of the pods.
        assert_served(&too.get("/", &[BOB]).await, "orders-bob", "http-too");
        assert_untouched(&too.get("/", &[]).await, "http-too");
        assert_eq!(admin.get("/", &[BOB]).await.by(), "admin");
        let [mine, others] = [&[BOB][..], &[]].map(|headers| Grpc::new(endpoint.clone(), headers));
        assert_eq!(mine.unary().await.expect("an answer"), "calls");
        assert_eq!(mine.server_stream().await.expect("an answer"), "calls");
        assert_eq!(mine.ping_pong(20).await.expect("answers"), "calls");
        assert_eq!(others.unary().await.expect("an answer"), "app");
        assert_eq!(others.ping_pong(20).await.expect("answers"), "app");
    }
    for (headers, by) in [(&[BOB][..], "server"), (&[], "app")] {
        let mut socket = Socket::open(stage.endpoint(80), headers)
            .await
            .expect("opens");
        assert_eq!(socket.answered_by(), by);
        assert_eq!(socket.ask("hello").await.expect("an echo"), "hello");
        socket.close().await.expect("closes");
    }
    assert!(http.leave().await.success());
    let mine = Grpc::new(endpoint, &[BOB]);
    assert_eq!(mine.unary().await.expect("an answer"), "calls");
    assert!(grpc.leave().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_survives_the_intercepts_of_others() {
    let (stage, server) = (
        Plan::new("open")
            .port("grpc", 9000, 9000, "app")
            .start()
            .await,
        App::start("server").await,
    );
    let calls = App::start("calls").await;
    let (bob, port) = (stage.developer("bob"), format!("{}:http", server.port()));
    let _bob = bob
        .intercept_port(&port, &["--http-header=Coder=Bob"])
        .await;
    let _calls = bob
        .intercept_port(
            &format!("{}:grpc", calls.port()),
            &["--http-header=Coder=Bob", "--name=calls-bob"],
        )
        .await;
    let mut sockets = Vec::new();
    for headers in [&[BOB][..], &[]] {
        let mut socket = Socket::open(stage.endpoint(80), headers)
            .await
            .expect("opens");
        socket.ask("first").await.expect("an echo");
        sockets.push(socket);
    }
    let goes_on = Arc::new(AtomicBool::new(true));
    let streams = [(&[BOB][..], "calls"), (&[], "app")].map(|(headers, by)| {
        let (grpc, goes_on) = (
            Grpc::new(stage.endpoint(9000), headers),
            Arc::clone(&goes_on),
        );
        let pause = Duration::from_millis(50);
        let stream = tokio::spawn(async move { grpc.ping_pong_while(pause, &goes_on).await });
        (stream, by)
    });
    // A changed listener cuts connections only after a drain of 45 seconds; the change itself is visible at once.
    let listeners = stage.inbound_listeners();
    for round in 0..3 {
        let other = stage
            .developer("alice")
            .intercept_port(&port, &["--http-header=Coder=Alice"])
            .await;
        stage.wait_answered_by(ALICE, "server").await;
        assert!(other.leave().await.success());
        for socket in &mut sockets {
            let text = format!("round {round}");
            assert_eq!(socket.ask(&text).await.expect("still open"), text);
        }
    }
    assert_eq!(stage.inbound_listeners(), listeners, "none was changed");
    for (stream, by) in &streams {
        assert!(!stream.is_finished(), "of {by}: open all the while");
    }
    goes_on.store(false, Ordering::SeqCst);
    for (stream, by) in streams {
        let ended = stream.await.expect("no panic").expect("open to its end");
        assert_eq!(ended, by);
    }
    // The control: a change of the listener is visible.
    stage.apply(deny("/denied"));
    wait::until("listeners change", async || {
        let now = stage.inbound_listeners();
        listeners
            .iter()
            .all(|(pod, since)| now.get(pod) != Some(since))
    })
    .await;
}

/// A user's policy for `orders`.
fn policy(name: &str, action: &str, operation: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "orders"}}, "action": action, "rules": [{"to": [{"operation": operation}]}]}})
}

fn deny(path: &str) -> Value {
    policy("deny", "DENY", &json!({"paths": [path]}))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_denies_never_reaches_a_developer() {
    let (stage, server) = (Stage::new("denied").await, App::start("server").await);
    let _bob = stage.bob_intercepts(&server).await;
    // Each of the three is another of Envoy's filters.
    let jwks = r#"{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    stage.apply_all([
        deny("/denied"),
        policy("allow", "ALLOW", &json!({"notPaths": ["/not-allowed"]})),
        json!({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "tokens"},
            "spec": {"selector": {"matchLabels": {"app": "orders"}}, "jwtRules": [{"issuer": "somebody", "jwks": jwks}]}}),
    ]);
    let (none, endpoint) = ([], stage.endpoint(80));
    let forged = [("authorization", "Bearer forged")];
    let cases = [
        ("/denied", &none[..], 403),
        ("/not-allowed", &none, 403),
        ("/", &forged, 401),
    ];
    for (path, headers, status) in cases {
        let what = format!("{path} is denied");
        stage
            .wait_answered(&what, path, headers, |answer| answer.status == status)
            .await;
    }
    let before = server.total();
    for (path, headers, status) in cases {
        let headers = [headers, &[BOB]].concat();
        for _ in 0..20 {
            let answer = Client::h1(endpoint.clone()).get(path, &headers).await;
            let seen = (answer.status.as_u16(), answer.header("x-intercept"));
            assert_eq!(seen, (status, None), "{path}");
        }
    }
    assert_eq!(server.total(), before, "none was let through");
    let allowed = Client::h1(endpoint).get("/", &[BOB]).await;
    assert_served(&allowed, "orders-bob", "what is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_other_namespaces_are_intercepted_too() {
    let (stage, other) = tokio::join!(Stage::new("shop"), Plan::new("web").bare().start());
    let server = App::start("server").await;
    let _bob = stage
        .developer("bob")
        .intercept(&server, &["--http-header=Coder=Bob"])
        .await;
    let host = format!("orders.{}", stage.namespace);
    let endpoint = other.door_to(stage.service_address(80), &host);
    for _ in 0..10 {
        assert_served(
            &Client::h1(endpoint.clone()).get("/", &[BOB]).await,
            "orders-bob",
            "from another namespace",
        );
        assert_untouched(
            &Client::h1(endpoint.clone()).get("/", &[]).await,
            "from another namespace",
        );
        // The other namespace's service of the same name is not affected.
        assert_untouched(&other.h1().get("/", &[BOB]).await, "the other orders");
    }
}

/// Callers outside of the mesh that know the pods' addresses.
async fn assert_plain_text_callers_are_intercepted(plan: Plan) {
    let plan = plan.port("grpc", 9000, 9000, "app");
    let plan = plan.permissive().listening(7070, "hidden");
    let stage = plan.start().await;
    let (server, calls) = (App::start("server").await, App::start("calls").await);
    let bob = stage.developer("bob");
    let coder = "--http-header=Coder=Bob";
    let http = format!("{}:http", server.port());
    let http = bob.intercept_port(&http, &[coder]).await;
    let grpc = format!("{}:grpc", calls.port());
    let grpc = bob
        .intercept_port(&grpc, &[coder, "--name=calls-bob"])
        .await;
    for (pod, address) in stage.replicas() {
        let direct = Client::h1(SocketAddr::from((address, 8080)));
        assert_served(&direct.get("/", &[BOB]).await, "orders-bob", &pod);
        assert_untouched(&direct.get("/", &[]).await, &pod);
        // No Service has this port; Envoy lets it pass through the filter.
        let hidden = Client::h1(SocketAddr::from((address, 7070)));
        assert_eq!(hidden.get("/", &[BOB]).await.by(), "hidden", "{pod}");
    }
    let address = (stage.replicas().remove(0).1, 9000).into();
    assert_deadline_is_heeded(address, &[], "app").await;
    assert_eq!(calls.total(), 0);
    assert_deadline_is_heeded(address, &[BOB], "calls").await;
    assert_eq!(calls.total(), 1);
    assert!(http.leave().await.success());
    assert!(grpc.leave().await.success());
}

/// Checks the deadline of a call that is held there, without a caller's sidecar that would end it.
async fn assert_deadline_is_heeded(
    addr: SocketAddr,
    headers: &[(&str, &str)],
    held_by: &'static str,
) {
    let grpc = Grpc::new(addr, headers).with("grpc-timeout", "300m");
    let held = grpc.with("test-do", &Do::HoldAt(held_by).to_string());
    let ended = tokio::time::timeout(wait::DEADLINE, held.unary()).await;
    let ended = ended.expect("ended in time").expect_err("it is held");
    assert_eq!(ended.code(), tonic::Code::DeadlineExceeded, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_callers_of_a_stateful_set_are_intercepted() {
    let plan = Plan::new("stateful").kind(Kind::StatefulSet);
    assert_plain_text_callers_are_intercepted(plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_callers_of_a_daemon_set_are_intercepted() {
    let plan = Plan::new("daemon").kind(Kind::DaemonSet);
    assert_plain_text_callers_are_intercepted(plan).await;
}

/// bob's port-forward to a relay's data port.
struct Forward {
    addr: SocketAddr,
    _process: Process,
}

impl Forward {
    async fn to(stage: &Stage, pod: &str) -> Self {
        let mut command = Command::new(binaries::tool("kubectl", "kubernetes-client"));
        command.arg("--kubeconfig").arg(stage.kubeconfig("bob"));
        command.args(["-n", SYSTEM, "port-forward", &format!("pod/{pod}"), ":8080"]);
        let mut process = Process::start(&format!("forward-{pod}"), stage.dir(), command);
        let addr = process.wait_output_with("says where it listens", |output| {
            let (_, rest) = output.split_once("Forwarding from ")?;
            rest.split(' ').next()?.parse().ok()
        });
        let addr = addr.await;
        Self {
            addr,
            _process: process,
        }
    }
}

/// Checks bob's requests in Istio's metrics of the replicas and of the relays.
async fn assert_counted(stage: &Stage, relays: &[(String, IpAddr)]) {
    let figures = stage.ask_proxies("stats?filter=intercept_");
    let matched: Vec<u64> = figures
        .values()
        .map(|text| figure(text, "intercept_matched_total: "))
        .collect();
    assert!(matched.iter().sum::<u64>() >= 20, "{figures:?}");
    let (mut tunnels, mut requests) = (0, 0);
    for (_, relay) in relays {
        let metrics = Client::h1(SocketAddr::from((*relay, 15_020)));
        let answer = metrics.get("/stats/prometheus", &[]).await;
        let text = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
        tunnels += figure(&text, "injector_relay_tunnels ");
        requests += figure(&text, "injector_relay_requests_total");
    }
    assert!(tunnels >= 1 && requests >= 20, "{tunnels}, {requests}");
}

/// The sum of the counters of that name.
fn figure(text: &str, name: &str) -> u64 {
    let lines = text
        .lines()
        .filter(|line| line.contains(name) && !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_takes_requests_from_the_workload_only() {
    let (stage, server) = (Stage::new("direct").await, App::start("server").await);
    let _bob = stage.bob_intercepts(&server).await;
    let intercept = stage.get(&["intercept", "orders-bob"]);
    let address = intercept["spec"]["tunnel"]["address"].clone();
    let address = address.as_str().expect("an address").to_owned();
    let before = server.total();
    let relays = stage.cluster().relays();
    assert_eq!(relays.len(), 2);
    assert_counted(&stage, &relays).await;
    for (name, relay) in relays {
        // As another pod of the mesh, whose identity is not the workload's.
        let host = format!("{name}.injector-system");
        let service = stage
            .cluster()
            .service_address("injector-system", &name, 8080);
        let answer = Client::h1(stage.door_to(service, &host))
            .get("/", &[("x-intercept-address", &address)])
            .await;
        assert!(
            answer.status == 403 || answer.header("x-intercept-unavailable").is_some(),
            "{answer:?}"
        );
        // From outside of the mesh: not even an HTTP connection.
        let plain = Client::h1(SocketAddr::from((relay, 8080)));
        let ask = Ask::get("/").header("x-intercept-address", &address);
        assert!(plain.ask(ask).await.is_err());
    }
    // Past the sidecar, as any user with the right to open tunnels can, with a forged identity.
    for (name, _) in stage.cluster().relays() {
        let forged = format!("spiffe://cluster.local/ns/{}/sa/orders", stage.namespace);
        let forward = Forward::to(&stage, &name).await;
        let headers = [
            ("x-intercept-address", address.as_str()),
            ("x-intercept-peer", &forged),
        ];
        let answer = Client::h1(forward.addr).get("/", &headers).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(
            answer.header("x-intercept-unavailable").is_some(),
            "{answer:?}"
        );
    }
    assert_eq!(server.total(), before, "no request got through");
    wait::until("the workload's own still do", async || {
        stage.h1().get("/", &[BOB]).await.by() == "server"
    })
    .await;
}

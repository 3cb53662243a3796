//! Matched requests that the developer's side cannot take, on every supported Envoy.
//!
//! Every request is counted at the developer's server *and* at the app: no unsafe request ever runs twice, and no answered request is ever repeated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::app::{App, Do};
use harness::binaries::ENVOYS;
use harness::client::{Ask, collect};
use harness::grpc::Grpc;
use harness::intercept::Intercept;
use harness::load::{self, Load, Outcome};
use harness::mesh::{Mesh, Plan};
use harness::ports::Port;
use harness::raw;
use harness::wait;
use intercept_manifest::facts::Protocol;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Runs each of these tests on each Envoy.
macro_rules! on_each_envoy {
    ($($version:ident = $place:literal),*: $tests:tt) => {
        $(mod $version { on_each_envoy!(@ $place $tests); })*
    };
    (@ $place:literal [$($test:ident),* $(,)?]) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            super::$test(super::ENVOYS[$place]).await;
        })*
    };
}

on_each_envoy!(envoy_1_37_0 = 0, envoy_1_39_3 = 1, envoy_1_40_0 = 2: [
    nothing_listens_on_the_developers_port,
    the_cli_was_killed,
    the_relay_was_killed,
    the_cli_is_killed_under_gets,
    the_relay_is_killed_under_gets,
    the_cli_is_killed_under_posts,
    the_relay_is_killed_under_posts,
    the_developers_own_errors_pass,
    marks_of_the_app_repeat_no_request,
    broken_answers_arrive_as_far_as_sent,
    a_server_that_dies_mid_request_loses_only_what_is_not_safe,
    a_cli_that_dies_mid_request_loses_only_what_is_not_safe,
    a_body_that_fits_the_retry_buffer_falls_back_and_a_larger_one_never_runs_twice,
    grpc_falls_back_and_a_lost_call_is_not_repeatable,
    a_client_that_waits_for_100_continue_falls_back,
]);

const MATCHES: (&str, &str) = ("coder", "Bob");

/// The app, the developer's server, and the mesh.
async fn stage(version: &str) -> (App, App, Mesh) {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::of(&app).on(version).start().await;
    (app, server, mesh)
}

async fn intercept(mesh: &Mesh, server: &App) -> Intercept {
    let bob = mesh.intercept(server, &["--http-header=Coder=Bob"]).await;
    wait::until("the server gets what matches", async || {
        mesh.h1().get("/", &[MATCHES]).await.by() == "server"
    })
    .await;
    bob
}

fn get() -> Ask {
    Ask::get("/").header(MATCHES.0, MATCHES.1)
}

fn post() -> Ask {
    Ask::post("/", 100_000).header(MATCHES.0, MATCHES.1)
}

/// Concurrency, number of requests, and what the app does.
///
/// At 64 it is slow, so that all requests wait at the same time.
const LOADS: [(usize, usize, Do); 3] = [
    (1, 15, Do::Tell),
    (8, 80, Do::Tell),
    (64, 192, Do::Sleep(300)),
];

/// Sends every load of GETs and POSTs.
///
/// The app must run and answer each request once, and the server must see none.
async fn assert_all_fall_back(app: &App, server: &App, mesh: &Mesh) {
    let client = mesh.h1();
    let mut sent = 0;
    for (workers, count, what) in LOADS {
        for (method, ask) in [("get", get()), ("post", post())] {
            let name = format!("{method}-{workers}-");
            let prefix = name.clone();
            let outcome = load::run(&client, workers, count, move |number| {
                ask.clone()
                    .to(what)
                    .header("load", format!("{prefix}{number}"))
            })
            .await;
            outcome.assert_no_errors();
            assert_eq!(
                outcome.answered_by("app"),
                count,
                "{name}: {:?}",
                outcome.by()
            );
            sent += count;
        }
    }
    let executed: Vec<String> = app
        .seen()
        .iter()
        .filter_map(|request| Some(request.headers.get("load")?.to_str().ok()?.to_owned()))
        .collect();
    let mut distinct = executed.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(
        (executed.len(), distinct.len()),
        (sent, sent),
        "each ran once at the app"
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|request| !request.headers.contains_key("load"))
    );
}

async fn nothing_listens_on_the_developers_port(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let silent = Port::reserve();
    let port = silent.number().to_string();
    let _bob = mesh
        .developer("bob")
        .intercept_port(&port, &["--http-header=Coder=Bob"])
        .await;
    assert_all_fall_back(&app, &server, &mesh).await;
    let answer = mesh.h1().must(get()).await;
    assert_eq!(answer.header("x-intercept"), Some("orders-bob"));
    assert_eq!(answer.header("x-intercept-served-by"), None);
    assert_eq!(answer.header("x-intercept-unavailable"), None);
}

async fn the_cli_was_killed(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let mut bob = intercept(&mesh, &server).await;
    bob.process.kill();
    assert_all_fall_back(&app, &server, &mesh).await;
}

async fn the_relay_was_killed(version: &str) {
    let (app, server, mut mesh) = stage(version).await;
    let _bob = intercept(&mesh, &server).await;
    mesh.relay().kill();
    // A request on a connection whose end Envoy has not noticed counts as running: the next test covers it.
    wait::until("Envoy has noticed", async || {
        mesh.envoy
            .stat("intercept-relay|http.upstream_cx_active")
            .await
            == 0
    })
    .await;
    assert_all_fall_back(&app, &server, &mesh).await;

    // And back: the CLI is still running, and finds the new relay.
    mesh.restart_relay().await;
    wait::until("the server gets what matches again", async || {
        mesh.h1().get("/", &[MATCHES]).await.by() == "server"
    })
    .await;
}

/// Runs a load that `end` interrupts.
async fn interrupted(mesh: &Mesh, server: &App, ask: Ask, end: impl AsyncFnOnce()) -> Outcome {
    let load = Load::start(&mesh.h1(), 8, usize::MAX, move |_| {
        ask.clone().to(Do::Sleep(5))
    });
    let begun = server.total();
    wait::until("the server is busy", async || server.total() > begun + 50).await;
    end().await;
    let sent = load.sent();
    wait::until("more were sent", async || load.sent() > sent + 100).await;
    load.stop().await
}

/// Checks that both sides answered, and that their counts match what the clients saw.
fn assert_exact(outcome: &Outcome, app: &App, server: &App, is_safe: bool) {
    outcome.assert_exact(&app.executed(), &server.executed(), is_safe);
    assert!(
        outcome.answered_by("server") > 20 && outcome.answered_by("app") > 20,
        "{:?}",
        outcome.by()
    );
}

async fn the_cli_is_killed_under_gets(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let mut bob = intercept(&mesh, &server).await;
    let outcome = interrupted(&mesh, &server, get(), async || bob.process.kill()).await;
    outcome.assert_interrupted(8, 0);
    assert_exact(&outcome, &app, &server, true);
}

async fn the_relay_is_killed_under_gets(version: &str) {
    let (app, server, mut mesh) = stage(version).await;
    let _bob = intercept(&mesh, &server).await;
    let mut relay = mesh.take_relay();
    let outcome = interrupted(&mesh, &server, get(), async || relay.kill()).await;
    outcome.assert_interrupted(8, 0);
    assert_exact(&outcome, &app, &server, true);
}

async fn the_cli_is_killed_under_posts(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let mut bob = intercept(&mesh, &server).await;
    let outcome = interrupted(&mesh, &server, post(), async || bob.process.kill()).await;
    assert_exact(&outcome, &app, &server, false);
    outcome.assert_interrupted(8, 8);
    for error in outcome.errors.values() {
        assert!(
            error.contains("502") && error.contains("x-intercept-error"),
            "{error}"
        );
    }
}

async fn the_relay_is_killed_under_posts(version: &str) {
    let (app, server, mut mesh) = stage(version).await;
    let _bob = intercept(&mesh, &server).await;
    let mut relay = mesh.take_relay();
    let outcome = interrupted(&mesh, &server, post(), async || relay.kill()).await;
    assert_exact(&outcome, &app, &server, false);
    outcome.assert_interrupted(8, 8);
}

async fn the_developers_own_errors_pass(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let _bob = intercept(&mesh, &server).await;
    let client = mesh.h1();
    for status in [500, 502, 503, 504, 429, 403, 431] {
        for (method, ask) in [("get", get()), ("post", post())] {
            let id = format!("{method}-{status}");
            let answer = client.must(ask.id(&id).to(Do::Status(status))).await;
            assert_eq!(
                (answer.status.as_u16(), answer.by()),
                (status, "server"),
                "{id}"
            );
            assert_eq!(
                answer.header("x-intercept-served-by"),
                Some("orders-bob"),
                "{id}"
            );
            assert_eq!(
                (server.executed_id(&id), app.executed_id(&id)),
                (1, 0),
                "{id}"
            );
        }
    }
}

/// An app whose responses have our marks, as if it forwarded headers of another service.
///
/// It counts the requests.
async fn marking_app() -> (SocketAddr, Arc<AtomicUsize>) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nx-intercept-unavailable: no-tunnel\r\n\
        x-intercept-unavailable: no-tunnel from 192.0.2.1:8080\r\nx-intercept-lost: x\r\n\
        answered-by: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read_buf(&mut head).await;
                if read.is_ok_and(|read| read == 0) {
                    break;
                }
            }
            // Envoy itself sends no requests: every head is one of the test's.
            counted.fetch_add(usize::from(!head.is_empty()), Ordering::SeqCst);
            let _ = stream.write_all(ANSWER).await;
        }
    });
    (addr, count)
}

async fn marks_of_the_app_repeat_no_request(version: &str) {
    let (app, count) = marking_app().await;
    let server = App::start("server").await;
    // Without an endpoint of the relay, the first attempt goes to the app.
    let without_relay = |bootstrap: &mut Value| {
        let clusters = bootstrap.pointer_mut("/static_resources/clusters");
        let clusters = clusters.and_then(Value::as_array_mut).expect("clusters");
        for cluster in clusters {
            if cluster["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("intercept-relay|"))
            {
                cluster["load_assignment"]["endpoints"] = json!([]);
            }
        }
    };
    let plan = Plan::at(app, Protocol::Http).on(version);
    let mesh = plan.edit(without_relay).start().await;
    let _bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    wait::until("it is matched", async || {
        let answer = mesh.h1().get("/", &[MATCHES]).await;
        answer.header("x-intercept").is_some()
    })
    .await;
    for client in [mesh.h1(), mesh.h2c()] {
        for ask in [get(), Ask::post("/", 10).header(MATCHES.0, MATCHES.1)] {
            let before = count.load(Ordering::SeqCst);
            let answer = client.must(ask).await;
            assert_eq!((answer.status.as_u16(), answer.by()), (200, "app"));
            assert_eq!(count.load(Ordering::SeqCst) - before, 1, "{answer:?}");
            assert_eq!(answer.header("x-intercept"), Some("orders-bob"));
            for mark in ["x-intercept-unavailable", "x-intercept-lost"] {
                assert_eq!(answer.header(mark), None, "{answer:?}");
            }
        }
    }
    assert_eq!(server.total(), 0);
}

/// How much of its body a dying server has sent.
const SENT: usize = 5_000;

/// A developer's server that sends a head and part of a body, and resets the connection.
async fn dying_server(framing: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !raw::contains(&head, "\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(1..) => {}
                    _ => break,
                }
            }
            let answer = format!("HTTP/1.1 203 Dying\r\n{framing}\r\n{}", "~".repeat(SENT));
            let _ = stream.write_all(answer.as_bytes()).await;
            stream.set_zero_linger().expect("SO_LINGER");
        }
    });
    port
}

async fn broken_answers_arrive_as_far_as_sent(version: &str) {
    let (app, _server, mesh) = stage(version).await;
    for (name, framing) in [
        ("bob", "content-length: 10000\r\n"),
        ("ann", "transfer-encoding: chunked\r\n\r\n2710"),
    ] {
        let port = dying_server(framing).await.to_string();
        let header = format!("--http-header=Coder={name}");
        let developer = mesh.developer(name);
        let _intercept = developer.intercept_port(&port, &[&header]).await;
        let ask = async |method: &str, size: usize| {
            let head = format!(
                "{method} / HTTP/1.1\r\nhost: a\r\ncoder: {name}\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
            );
            let request = [head.as_bytes(), &vec![b'u'; size]].concat();
            raw::exchange(mesh.addr(), &request).await
        };
        wait::until("the server gets what matches", async || {
            raw::status(&ask("GET", 0).await) == Some(203)
        })
        .await;
        let before = app.total();
        for (method, size) in [("GET", 0), ("POST", 1_000), ("POST", 300_000)] {
            for round in 0..100 {
                let what = format!("{framing:?}, {method} of {size}, {round}");
                let answer = ask(method, size).await;
                let text = String::from_utf8_lossy(&answer);
                assert_eq!(raw::status(&answer), Some(203), "{what}: {text}");
                assert_eq!(text.matches('~').count(), SENT, "{what}");
                assert!(!text.ends_with("0\r\n\r\n"), "{what}: it ended well");
            }
        }
        assert_eq!(app.total(), before, "{framing:?}");
    }
}

/// Sends a GET and a POST, and calls `end` while the server has them.
///
/// The app must answer the GET, and the POST must get an error that says so.
async fn assert_lost(app: &App, server: &App, mesh: &Mesh, what: Do, end: impl AsyncFnOnce()) {
    let client = mesh.h1();
    let (safe, lost) = (get().id("safe").to(what), post().id("lost").to(what));
    let (safe, lost, ()) = tokio::join!(client.ask(safe), client.ask(lost), async {
        wait::until("the server has both", async || {
            server.executed_id("safe") == 1 && server.executed_id("lost") == 1
        })
        .await;
        end().await;
    });
    let (safe, lost) = (safe.expect("an answer"), lost.expect("an answer"));
    assert_eq!((safe.status.as_u16(), safe.by()), (200, "app"));
    assert_eq!(
        (server.executed_id("safe"), app.executed_id("safe")),
        (1, 1)
    );
    assert_eq!(safe.header("x-intercept-lost"), None);
    assert_eq!((lost.status.as_u16(), lost.by()), (502, "nobody"));
    assert!(
        lost.header("x-intercept-error").is_some(),
        "{:?}",
        lost.headers
    );
    assert_eq!(lost.header("x-intercept"), Some("orders-bob"));
    assert_eq!(lost.header("x-intercept-lost"), None);
    assert_eq!(
        (server.executed_id("lost"), app.executed_id("lost")),
        (1, 0)
    );
}

async fn a_server_that_dies_mid_request_loses_only_what_is_not_safe(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let _bob = intercept(&mesh, &server).await;
    // The second attempt goes to the app, which must not die of the same request.
    let hold = Do::HoldAt("server");
    assert_lost(&app, &server, &mesh, hold, async || server.kill().await).await;
}

async fn a_cli_that_dies_mid_request_loses_only_what_is_not_safe(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let mut bob = intercept(&mesh, &server).await;
    let hold = Do::HoldAt("server");
    assert_lost(&app, &server, &mesh, hold, async || bob.process.kill()).await;
}

async fn a_body_that_fits_the_retry_buffer_falls_back_and_a_larger_one_never_runs_twice(
    version: &str,
) {
    const BUFFER: usize = 1 << 20;
    let (app, server, mesh) = stage(version).await;
    let mut bob = intercept(&mesh, &server).await;
    let client = mesh.h1();
    let ask = |length: usize, id: &str| Ask::post("/", length).header(MATCHES.0, MATCHES.1).id(id);
    let answer = client.must(ask(5 * BUFFER, "live")).await;
    assert_eq!(
        (answer.by(), answer.seen().length),
        ("server", 5 * BUFFER as u64)
    );

    bob.process.kill();
    for number in 0..5 {
        let id = format!("fits-{number}");
        let answer = client.must(ask(BUFFER, &id)).await;
        assert_eq!(
            (answer.by(), answer.seen().length),
            ("app", BUFFER as u64),
            "{id}"
        );
        assert_eq!(
            (app.executed_id(&id), server.executed_id(&id)),
            (1, 0),
            "{id}"
        );
        let id = format!("large-{number}");
        // Envoy may reject it, or may have the response before the buffer is full. It must run at most once.
        if let Ok(response) = client.open(ask(3 * BUFFER, &id)).await {
            let answer = collect(response).await;
            let is_whole = answer.is_ok_and(|answer| answer.status == 200);
            assert_eq!(app.executed_id(&id), usize::from(is_whole), "{id}");
        }
        assert!(
            app.executed_id(&id) <= 1 && server.executed_id(&id) == 0,
            "{id}"
        );
    }
}

async fn grpc_falls_back_and_a_lost_call_is_not_repeatable(version: &str) {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::at(app.addr(), Protocol::Grpc)
        .on(version)
        .start()
        .await;
    let mut bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let grpc = Grpc::new(mesh.addr(), &[MATCHES]);
    wait::until("the server gets what matches", async || {
        grpc.unary().await.is_ok_and(|by| by == "server")
    })
    .await;

    let held = harness::app::TEST_DO;
    let hold = Do::HoldAt("server").to_string();
    let lost = Grpc::new(mesh.addr(), &[MATCHES, (held, &hold), ("test-id", "lost")]);
    let (lost, ()) = tokio::join!(lost.unary(), async {
        wait::until("the server has the call", async || {
            server.executed_id("lost") == 1
        })
        .await;
        bob.process.kill();
    });
    let status = lost.expect_err("the call was under way");
    assert_eq!(status.code(), tonic::Code::Internal, "{status:?}");
    assert_eq!(
        (server.executed_id("lost"), app.executed_id("lost")),
        (1, 0)
    );

    let before = app.total();
    assert_eq!(grpc.unary().await.expect("an answer"), "app");
    assert_eq!(grpc.server_stream().await.expect("an answer"), "app");
    assert_eq!(grpc.ping_pong(20).await.expect("an answer"), "app");
    assert_eq!(app.total() - before, 3, "each ran once");
}

async fn a_client_that_waits_for_100_continue_falls_back(version: &str) {
    let (app, server, mesh) = stage(version).await;
    let mut bob = intercept(&mesh, &server).await;
    let answer = raw::expect_100(mesh.addr(), "coder: Bob").await;
    assert!(answer.contains("answered-by: server"), "{answer}");
    server.kill().await;
    let answer = raw::expect_100(mesh.addr(), "coder: Bob").await;
    assert!(
        answer.contains("answered-by: app"),
        "nothing listens: {answer}"
    );
    bob.process.kill();
    let answer = raw::expect_100(mesh.addr(), "coder: Bob").await;
    assert!(answer.contains("answered-by: app"), "no tunnel: {answer}");
    assert_eq!(app.total(), 2);
}

//! Odd requests through a real Envoy with the filter.
//!
//! None may harm another, and an unmatched one must arrive as it would without the filter.

use std::net::SocketAddr;

use harness::app::App;
use harness::client::{Ask, Client};
use harness::mesh::{Mesh, Plan};
use harness::plugin::{NOBODY, document, entry};
use harness::ports::Port;
use harness::raw;
use harness::recorder::Recorder;
use intercept_core::MatchBaggage;
use intercept_manifest::facts::Protocol;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Raises Envoy's limit of 100 headers, so that more of them reach the filter.
fn many_headers(bootstrap: &mut Value) {
    let manager = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
        [0]["typed_config"];
    manager["common_http_protocol_options"]["max_headers_count"] = 20_000.into();
    manager["max_request_headers_kb"] = 8_192.into();
}

/// A mesh with intercepts of several kinds, all served by the stand-in "developer".
///
/// On an exact value, a regex, a pseudo-header and a baggage key.
async fn stage() -> (App, App, Mesh) {
    let (app, developer) = (App::start("app").await, App::start("developer").await);
    let mesh = Plan::of(&app)
        .relay_at(developer.addr())
        .one_worker()
        .edit(many_headers)
        .start()
        .await;
    let port = mesh.port();
    let (name, mut baggage) = entry("baggage", port, NOBODY, "x", "x");
    baggage.headers.clear();
    baggage.baggage = vec![MatchBaggage {
        key: "dev".to_owned(),
        value: "b.b".to_owned(),
    }];
    mesh.write_document(&document([
        entry("exact", port, NOBODY, "coder", "Bob"),
        entry("regex", port, NOBODY, "team", "r[a-z]*d?"),
        entry("empty", port, NOBODY, "x-empty", ".*"),
        entry("method", port, NOBODY, ":method", "PURGE"),
        (name, baggage),
    ]))
    .await;
    (app, developer, mesh)
}

fn request(headers: &[u8]) -> Vec<u8> {
    [
        b"GET /odd HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n",
        headers,
        b"\r\n",
    ]
    .concat()
}

/// The app that answered a request with these raw header lines.
async fn who(mesh: &Mesh, headers: &[u8]) -> &'static str {
    let answer = raw::exchange(mesh.addr(), &request(headers)).await;
    let by = ["app", "developer"];
    let by = by
        .into_iter()
        .find(|name| raw::contains(&answer, &format!("answered-by: {name}")));
    by.unwrap_or("nobody")
}

/// The filter still decides, for all requests: a trap would have ended it on this, the only worker.
async fn assert_filter_lives(mesh: &Mesh) {
    assert_eq!(who(mesh, b"coder: Bob\r\n").await, "developer");
    assert_eq!(who(mesh, b"coder: Alice\r\n").await, "app");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_utf_8_match_no_regex_and_harm_nobody() {
    let (_app, _developer, mesh) = stage().await;
    for value in [
        &b"\xff\xfe"[..],
        b"r\xff",
        b"\xc3\x28",
        b"r\xf0\x28\x8c\x28d",
        b"\xed\xa0\x80",
    ] {
        for name in [
            "coder",
            "team",
            "baggage",
            "user-agent",
            "x-intercept-cluster",
            "cookie",
        ] {
            let line = [name.as_bytes(), b": ", value, b"\r\n"].concat();
            assert_eq!(who(&mesh, &line).await, "app", "{name} {value:?}");
        }
        let member = [b"baggage: dev=", value, b"\r\n"].concat();
        assert_eq!(who(&mesh, &member).await, "app", "{value:?}");
    }
    assert_filter_lives(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_not_utf_8_harm_nobody() {
    let (_app, _developer, mesh) = stage().await;
    let request =
        b"GET /\xff\xfe?\xff HTTP/1.1\r\nhost: orders\r\ncoder: Bob\r\nconnection: close\r\n\r\n";
    // Envoy itself may reject the request.
    raw::exchange(mesh.addr(), request).await;
    assert_filter_lives(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_repeated_lines_match_by_the_whole_and_by_each_member() {
    let (_app, _developer, mesh) = stage().await;
    for (lines, by) in [
        ("coder: Alice, Bob\r\n", "developer"),
        ("coder: Alice\r\ncoder: Bob\r\n", "developer"),
        ("coder: Alice ,\tBob ,Carol\r\n", "developer"),
        ("coder: Alice; Bob\r\n", "app"),
        ("coder: Bobby, Bo\r\n", "app"),
        ("team: blue, red\r\n", "developer"),
        ("team: blue\r\nteam: reeed\r\n", "developer"),
        ("team: blue, green\r\n", "app"),
        ("x-empty:\r\n", "developer"),
        ("x-other:\r\n", "app"),
        ("baggage: dev=bob\r\n", "developer"),
        (
            "baggage: a=1\r\nbaggage: dev=b%6Fb;ttl=1, c=2\r\n",
            "developer",
        ),
        ("baggage: a=1\r\nbaggage: c=2\r\n", "app"),
        ("baggage: devel=bob, dev=bobby\r\n", "app"),
    ] {
        assert_eq!(who(&mesh, lines.as_bytes()).await, by, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pseudo_headers_are_conditions_like_others() {
    let (_app, _developer, mesh) = stage().await;
    let purge = http::Method::from_bytes(b"PURGE").expect("a method");
    assert_eq!(
        mesh.h1()
            .must(Ask::get("/").method(purge.clone()))
            .await
            .by(),
        "developer"
    );
    assert_eq!(
        mesh.h2c().must(Ask::get("/").method(purge)).await.by(),
        "developer"
    );
    assert_eq!(mesh.h1().must(Ask::get("/")).await.by(), "app");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_matches_no_regex_but_can_equal_an_exact_one() {
    let (_app, _developer, mesh) = stage().await;
    let team = |length: usize| format!("team: r{}d\r\n", "e".repeat(length));
    assert_eq!(who(&mesh, team(4_000).as_bytes()).await, "developer");
    assert_eq!(who(&mesh, team(5_000).as_bytes()).await, "app");
    assert_eq!(who(&mesh, team(500_000).as_bytes()).await, "app");

    let long = "B".repeat(20_000);
    let port = mesh.port();
    mesh.write_document(&document([entry("long", port, NOBODY, "coder", &long)]))
        .await;
    assert_eq!(
        who(&mesh, format!("coder: {long}\r\n").as_bytes()).await,
        "developer"
    );
    assert_eq!(
        who(&mesh, format!("coder: {long}B\r\n").as_bytes()).await,
        "app"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_headers_change_no_decision() {
    let (_app, _developer, mesh) = stage().await;
    let others: String = (0..10_000)
        .map(|number| format!("x-{number}: {number}\r\n"))
        .collect();
    let repeated = "coder: Alice\r\n".repeat(10_000);
    for (lines, by) in [
        (others.clone(), "app"),
        (format!("{others}coder: Bob\r\n"), "developer"),
        (format!("coder: Bob\r\n{others}"), "developer"),
        (repeated.clone(), "app"),
        (format!("{repeated}coder: Bob\r\n"), "developer"),
    ] {
        let what = &lines[lines.len() - 20..];
        assert_eq!(who(&mesh, lines.as_bytes()).await, by, "…{what:?}");
    }
    assert_filter_lives(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_path_is_decided_like_a_short_one() {
    let (_app, _developer, mesh) = stage().await;
    let path = format!("/{}", "x".repeat(50_000));
    assert_eq!(
        mesh.h1().get(&path, &[("coder", "Bob")]).await.by(),
        "developer"
    );
    assert_eq!(mesh.h1().get(&path, &[]).await.by(), "app");
}

/// Unmatched requests as a client might send them: unusual case, order and repetition of headers.
const UNMATCHED: [&[u8]; 5] = [
    b"GET /a?b=c HTTP/1.1\r\nHost: orders\r\nX-Request-Id: 1\r\nAccept: */*\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: orders\r\nx-request-id: 2\r\ncontent-length: 5\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\n\r\nhello",
    b"POST /chunked HTTP/1.1\r\nhost: orders\r\nx-request-id: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /%2e%2e//a%20b HTTP/1.1\r\nhost: orders\r\nx-request-id: 4\r\ncookie: a=1; b=2\r\nX-Raw: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: orders\r\nx-request-id: 5\r\nCoder: Alice\r\nx-intercept-id: mine\r\nx-intercept-cluster: forged\r\n\r\n",
];

/// Sends [`UNMATCHED`] to a recording app.
async fn received(protocol: Protocol, is_bare: bool) -> (Recorder, Mesh) {
    let app = Recorder::start().await;
    let plan =
        Plan::at(app.addr(), protocol)
            .relay_at(app.addr())
            .one_worker()
            // A new number for each request would differ between any two runs.
            .edit(|bootstrap| {
                let manager = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"]
                    [0]["filters"][0]["typed_config"];
                manager["generate_request_id"] = false.into();
            });
    let plan = if is_bare { plan.bare() } else { plan };
    let mesh = plan.start().await;
    if !is_bare {
        let bob = entry("bob", mesh.port(), NOBODY, "coder", "Bob");
        mesh.write_document(&document([bob])).await;
    }
    for request in UNMATCHED {
        // One after the other, so that their order at the app is certain.
        let line_end = request
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a line")
            + 2;
        let (line, rest) = request.split_at(line_end);
        let whole = [line, b"connection: close\r\n", rest].concat();
        let answer = raw::exchange(mesh.addr(), &whole).await;
        assert_eq!(
            raw::status(&answer),
            Some(200),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    (app, mesh)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_intercepts_arrives_byte_for_byte_as_without_the_filter() {
    let (with, mesh) = received(Protocol::Http, false).await;
    let (without, _) = received(Protocol::Http, true).await;
    let (with, without) = (with.bytes(), without.bytes());
    assert!(
        raw::contains(&without, "\r\nx-intercept-cluster: forged\r\n"),
        "recorded at all"
    );
    assert_eq!(
        String::from_utf8_lossy(&with),
        String::from_utf8_lossy(&without)
    );
    assert_eq!(with, without);
    assert!(mesh.envoy.stat("intercept_rejected_entries").await == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_http_2() {
    let (with, _mesh) = received(Protocol::Http2, false).await;
    let (without, _) = received(Protocol::Http2, true).await;
    let (with, without) = (with.request_frames(), without.request_frames());
    assert!(without.len() > UNMATCHED.len(), "recorded at all");
    assert_eq!(with, without);
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_arrives_as_an_unmatched_request() {
    const MATCHED: &str = "GET /a?b=c HTTP/1.1\r\nconnection: close\r\nhost: orders\r\nx-request-id: 1\r\ncoder: Bob\r\n\r\n";
    let silent = Port::reserve();
    // An unreachable relay is tried first; an upstream cluster without a relay goes to the app at once.
    for has_relay in [true, false] {
        let app = Recorder::start().await;
        let plan = Plan::at(app.addr(), Protocol::Http).relay_at(silent.addr());
        let edit = move |bootstrap: &mut Value| {
            let resources = &mut bootstrap["static_resources"];
            let filters = &mut resources["listeners"][0]["filter_chains"][0]["filters"];
            filters[0]["typed_config"]["generate_request_id"] = false.into();
            let clusters = resources["clusters"].as_array_mut().expect("clusters");
            let mut clusters = clusters.iter_mut();
            let relay = clusters.find(|cluster| cluster["name"] == "intercept-relay|http");
            if !has_relay {
                relay.expect("a relay")["load_assignment"]["endpoints"] = json!([]);
            }
        };
        let mesh = plan.one_worker().edit(edit).start().await;
        let bob = entry("bob", mesh.port(), NOBODY, "coder", "Bob");
        mesh.write_document(&document([bob])).await;
        let arrived = async |request: &str| {
            let before = app.bytes().len();
            let answer = raw::exchange(mesh.addr(), request.as_bytes()).await;
            assert_eq!(raw::status(&answer), Some(200), "{has_relay}: {request}");
            let is_matched = raw::contains(&answer, "x-intercept: bob\r\n");
            let bytes = app.bytes()[before..].to_vec();
            (is_matched, String::from_utf8(bytes).expect("text"))
        };
        let (is_matched, matched) = arrived(MATCHED).await;
        assert!(
            is_matched && matched.starts_with("GET /a?b=c "),
            "{matched}"
        );
        let unmatched = arrived(&MATCHED.replace("Bob", "Rob")).await;
        assert_eq!(
            unmatched,
            (false, matched.replace("Bob", "Rob")),
            "{has_relay}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matched_request_is_what_the_recorder_would_tell_apart() {
    // The counterpart of the two tests above: matched requests do show changes.
    let (app, mesh) = received(Protocol::Http, false).await;
    let before = app.bytes().len();
    let answer = Client::h1(mesh.addr()).get("/", &[("coder", "Bob")]).await;
    assert_eq!(answer.status, 200);
    let bytes = app.bytes();
    assert!(
        raw::contains(&bytes[before..], "x-intercept-address: "),
        "{}",
        String::from_utf8_lossy(&bytes[before..])
    );
}

/// An app on a plain socket that accepts any target.
///
/// Returns its address and the request lines as they arrive. It responds 200 and closes.
async fn bare_app() -> (SocketAddr, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a bound address");
    // Each connection → the test: the first line.
    let (line_tx, line_rx) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let line_tx = line_tx.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head);
                let _ = line_tx.send(head.lines().next().unwrap_or_default().to_owned());
                let answer =
                    b"HTTP/1.1 200 OK\r\nanswered-by: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await
            });
        }
    });
    (addr, line_rx)
}

/// GETs a target over HTTP/2 in hand-made frames (RFC 9113, RFC 7541 section 6.2.3).
///
/// Libraries reject some targets.
///
/// Returns the first byte of the response's header block: `0x88` for status 200.
async fn get_h2(addr: SocketAddr, target: &str, header: (&str, &str)) -> u8 {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", target),
        header,
    ] {
        block.push(0x10);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    let length = u8::try_from(block.len()).expect("a short block");
    let mut stream = TcpStream::connect(addr).await.expect("a listener");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let head = [0, 0, length, 1, 5, 0, 0, 0, 1];
    let request = [&preface[..], &head, &block].concat();
    stream.write_all(&request).await.expect("open");
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("an answer");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        stream.read_exact(&mut payload).await.expect("an answer");
        if head[3] == 1 {
            return payload[0];
        }
    }
}

/// Curl -g, Go, Node and Python send the first one as it is here.
///
/// Envoy accepts it, and the tunnel's HTTP library does not.
#[tokio::test(flavor = "multi_thread")]
async fn targets_that_no_tunnel_carries_are_answered_by_the_cluster() {
    let (app, mut lines) = bare_app().await;
    let server = App::start("server").await;
    let mesh = Plan::at(app, Protocol::Http).one_worker().start().await;
    let mut bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    assert_eq!(mesh.h1().get("/", &[("coder", "Bob")]).await.by(), "server");
    let counter = "intercept_bypassed_target_total";
    let mut bypassed = 0;
    for is_alive in [true, false] {
        for target in [r#"/search?filter={"a":1}"#, "/a<b>", "/a`b", "/?x=<"] {
            let request = format!(
                "GET {target} HTTP/1.1\r\nhost: orders\r\ncoder: Bob\r\nconnection: close\r\n\r\n"
            );
            let answer = raw::exchange(mesh.addr(), request.as_bytes()).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
            assert!(answer.contains("answered-by: app"), "{target}: {answer}");
            // No mark of ours: as for an unmatched request.
            assert!(!answer.contains("x-intercept"), "{target}: {answer}");
            let line = format!("GET {target} HTTP/1.1");
            assert_eq!(lines.recv().await, Some(line.clone()));

            assert_eq!(
                get_h2(mesh.addr(), target, ("coder", "Bob")).await,
                0x88,
                "{target}"
            );
            assert_eq!(lines.recv().await, Some(line));
            bypassed += 2;
            assert_eq!(mesh.envoy.stat(counter).await, bypassed);
        }
        if is_alive {
            bob.process.kill();
        }
    }
    assert_eq!(server.total(), 1, "only the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_back_is_answered_by_the_cluster() {
    let (_app, developer, mesh) = stage().await;
    for (via, by) in [
        ("exact", "app"),
        ("regex, exact", "app"),
        ("regex\r\nx-intercept-via: exact", "app"),
        ("regex", "developer"),
    ] {
        let lines = format!("coder: Bob\r\nx-intercept-via: {via}\r\n");
        assert_eq!(who(&mesh, lines.as_bytes()).await, by, "{via}");
    }
    assert_eq!(mesh.envoy.stat("intercept_bypassed_loop_total").await, 3);
    assert_eq!(mesh.envoy.stat("intercept_bypassed_target_total").await, 0);
    // The header has no effect on an unmatched request.
    assert_eq!(who(&mesh, b"x-intercept-via: exact\r\n").await, "app");
    assert_eq!(developer.total(), 1);
}

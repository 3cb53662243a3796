//! Every protocol, both through relay and tunnel to the developer's server, and to the app.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use harness::app::{App, Do, TEST_DO};
use harness::client::{Ask, collect};
use harness::grpc::Grpc;
use harness::mesh::{Mesh, Plan};
use harness::wait;
use harness::websocket::Socket;
use http::Version;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use intercept_manifest::facts::Protocol;
use tokio::net::{TcpListener, TcpStream};

const MATCHES: (&str, &str) = ("coder", "Bob");
/// Headers with and without a match, and the app that answers.
const BOTH: [(&[(&str, &str)], &str); 2] = [(&[MATCHES], "server"), (&[], "app")];

/// The app, the developer's server, the mesh, and a live intercept.
async fn stage(protocol: Protocol) -> (App, App, Mesh, harness::intercept::Intercept) {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::at(app.addr(), protocol).start().await;
    let bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    (app, server, mesh, bob)
}

fn with(ask: Ask, headers: &[(&str, &str)]) -> Ask {
    headers
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_and_http_2_clients_are_served_on_every_kind_of_port() {
    for protocol in [Protocol::Http, Protocol::Http2, Protocol::Auto] {
        let (_app, _server, mesh, _bob) = stage(protocol).await;
        for client in [mesh.h1(), mesh.h2c()] {
            for (headers, by) in BOTH {
                let ask = with(Ask::post("/a/b?c=d", 300_000), headers);
                let hash = harness::app::sha256(ask.body());
                let answer = client.must(ask).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.by()),
                    (200, by),
                    "{protocol:?}"
                );
                let seen = answer.seen();
                assert_eq!((seen.method.as_str(), seen.length), ("POST", 300_000));
                assert!(seen.path.ends_with("/a/b?c=d"), "{}", seen.path);
                assert_eq!(seen.sha256, hash);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_is_spoken_to_as_ever_when_it_answers_in_the_developers_place() {
    for (protocol, version) in [
        (Protocol::Http, Version::HTTP_11),
        (Protocol::Http2, Version::HTTP_2),
    ] {
        let (app, server, mesh, _bob) = stage(protocol).await;
        for client in [mesh.h1(), mesh.h2c()] {
            assert_eq!(client.get("/", &[]).await.by(), "app");
            let version_seen = app.seen().pop().expect("a request").version;
            assert_eq!(version_seen, version, "unmatched, {protocol:?}");
        }
        server.kill().await;
        for client in [mesh.h1(), mesh.h2c()] {
            let answer = client.get("/", &[MATCHES]).await;
            assert_eq!(
                (answer.by(), answer.header("x-intercept")),
                ("app", Some("orders-bob"))
            );
            let version_seen = app.seen().pop().expect("a request").version;
            assert_eq!(version_seen, version, "in its place, {protocol:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_held_ends_when_its_caller_said_it_would() {
    let (app, server, mesh, _bob) = stage(Protocol::Grpc).await;
    let hold = Do::HoldAt("server").to_string();
    // Not with tonic's own timeout, which would end the call at the client.
    let call = Grpc::new(
        mesh.addr(),
        &[MATCHES, (TEST_DO, &hold), ("grpc-timeout", "300m")],
    );
    let ended = tokio::time::timeout(wait::DEADLINE, call.unary()).await;
    let status = ended.expect("it ends").expect_err("nobody answers it");
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
    assert_eq!((server.total(), app.total()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_of_every_kind_reach_the_developers_server() {
    let (_app, _server, mesh, _bob) = stage(Protocol::Grpc).await;
    for (headers, by) in BOTH {
        let grpc = Grpc::new(mesh.addr(), headers);
        assert_eq!(grpc.unary().await.expect("an answer"), by);
        assert_eq!(grpc.server_stream().await.expect("an answer"), by);
        assert_eq!(grpc.ping_pong(50).await.expect("answers"), by);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let (_app, _server, mesh, _bob) = stage(Protocol::Http2).await;
    for (headers, by) in BOTH {
        let answer = mesh
            .h2c()
            .must(with(Ask::get("/"), headers).to(Do::Trailers))
            .await;
        assert_eq!(&answer.body[..], b"one two three");
        let trailers = answer.trailers.expect("trailers of the answer");
        assert_eq!(trailers["test-trailer"], by);

        // The echo shows what the server received as request trailers.
        let mut sent = http::HeaderMap::new();
        sent.insert("test-sent", http::HeaderValue::from_static("yes"));
        let frames = [
            Frame::data(Bytes::from_static(b"body")),
            Frame::trailers(sent),
        ];
        let body = StreamBody::new(tokio_stream::iter(frames.map(Ok))).boxed_unsync();
        let ask = with(Ask::post("/", 0), headers).to(Do::Echo);
        let answer = mesh.h2c().open_with(ask, body).await.expect("an answer");
        let answer = collect(answer).await.expect("a whole answer");
        assert_eq!((answer.by(), &answer.body[..]), (by, &b"body"[..]));
        let trailers = answer.trailers.expect("trailers of the request");
        assert_eq!(trailers["test-sent"], "yes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_reach_the_developers_server_and_fall_back() {
    let (_app, _server, mesh, mut bob) = stage(Protocol::Http).await;
    for (headers, by) in BOTH {
        let mut socket = Socket::open(mesh.addr(), headers).await.expect("a socket");
        assert_eq!(socket.answered_by(), by);
        for text in ["hello", "", &"x".repeat(200_000)] {
            assert_eq!(socket.ask(text).await.expect("open"), text);
        }
        socket.close().await.expect("a clean end");
    }
    bob.process.kill();
    let mut socket = Socket::open(mesh.addr(), &[MATCHES])
        .await
        .expect("a socket");
    assert_eq!(socket.answered_by(), "app");
    assert_eq!(
        socket.ask("still there").await.expect("open"),
        "still there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_as_it_is_sent() {
    let (app, server, mesh, _bob) = stage(Protocol::Http).await;
    for ((headers, by), sender) in BOTH.into_iter().zip([&server, &app]) {
        let ask = with(Ask::get("/"), headers).to(Do::Events);
        let response = mesh.h1().open(ask).await.expect("a head before any event");
        assert_eq!(response.headers()["answered-by"], by);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = response.into_body();
        for number in 0..20 {
            assert_eq!(sender.say(&number.to_string()), 1);
            let frame = events.frame().await.expect("open").expect("whole");
            let text = frame.into_data().expect("data");
            assert_eq!(text, format!("data: {number}\n\n"));
        }
        // The server notices that the client has stopped listening.
        drop(events);
        wait::until("nobody listens any more", async || {
            sender.say("anybody?") == 0
        })
        .await;
    }
}

/// A developer's server that forwards every byte to that address.
///
/// Like a proxy that keeps all headers. Returns its port and a count of connections, one per request.
async fn proxy(to: SocketAddr) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxying_servers_make_no_loop() {
    for protocol in [
        Protocol::Http,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::Auto,
    ] {
        let app = App::start("app").await;
        let mesh = Plan::at(app.addr(), protocol).start().await;
        let mut proxies = Vec::new();
        for (name, header) in [("bob", "Coder=Bob"), ("ann", "Team=red")] {
            let (port, count) = proxy(mesh.addr()).await;
            let header = format!("--http-header={header}");
            let developer = mesh.developer(name);
            let intercept = developer
                .intercept_port(&port.to_string(), &[&header])
                .await;
            proxies.push((intercept, count));
        }
        let through = || -> usize {
            let counts = proxies.iter().map(|(_, count)| count);
            counts.map(|count| count.load(Ordering::SeqCst)).sum()
        };
        // The commands probe whether a server listens.
        let (before, mut sent) = (through(), 0);
        for headers in [
            &[MATCHES][..],
            &[("team", "red")],
            &[MATCHES, ("team", "red")],
        ] {
            for client in [mesh.h1(), mesh.h2c()] {
                for ask in [Ask::get("/"), Ask::post("/", 100_000)] {
                    let answer = client.must(with(ask, headers)).await;
                    sent += 1;
                    let what = format!("{protocol:?}, {headers:?}: {answer:?}");
                    assert_eq!(
                        (answer.status.as_u16(), answer.by()),
                        (200, "app"),
                        "{what}"
                    );
                    assert_eq!(app.total(), sent, "{what}");
                    // A GET may share a connection, but not with a request that waits for it.
                    assert!(through() - before <= sent, "{what}");
                }
            }
        }
        let cut = mesh.envoy.stat("intercept_bypassed_loop_total").await;
        assert_eq!(cut, sent as u64, "{protocol:?}");
    }
}

/// Size of the large body, in bytes.
const GIB: u64 = 1 << 30;
/// The memory limit of both ends of the tunnel, and of Envoy's growth, in KiB.
///
/// A window per direction and tunnel is 64 MiB at most.
const MOST_MEMORY: u64 = 96 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_passes_both_ways_in_little_memory() {
    const CHUNK: usize = 1 << 16;
    let (_app, _server, mut mesh, bob) = stage(Protocol::Http).await;
    // 251 is coprime to every chunk size, so that a lost, repeated or moved chunk shows.
    let pattern: Bytes = (0..2 * CHUNK)
        .map(|place| u8::try_from(place % 251).expect("below 251"))
        .collect();
    let at = {
        let pattern = pattern.clone();
        move |offset: u64, length: usize| {
            let start = usize::try_from(offset % 251).expect("below 251");
            pattern.slice(start..start + length)
        }
    };
    let chunks = {
        let at = at.clone();
        (0..GIB / CHUNK as u64).map(move |number| Ok(Frame::data(at(number * CHUNK as u64, CHUNK))))
    };
    let body = StreamBody::new(tokio_stream::iter(chunks)).boxed_unsync();
    let ask = Ask::post("/", 0).header(MATCHES.0, MATCHES.1).to(Do::Echo);
    let response = mesh.h1().open_with(ask, body).await.expect("an answer");
    assert_eq!(response.headers()["answered-by"], "server");
    let (mut body, mut offset) = (response.into_body(), 0);
    let before = mesh.envoy.allocated().await;
    let (mut most, mut next) = (before, GIB / 16);
    while let Some(frame) = body.frame().await {
        let data = frame.expect("whole").into_data().expect("no trailers");
        for part in data.chunks(CHUNK) {
            assert!(at(offset, part.len()) == part, "changed at {offset}");
            offset += part.len() as u64;
            if offset >= next {
                next += GIB / 16;
                most = most.max(mesh.envoy.allocated().await);
            }
        }
    }
    assert!(offset == GIB && next > GIB, "{offset}, {next}");
    // A request larger than the buffer is not kept for a second attempt: a stream may have any length.
    let grown = most.saturating_sub(before) >> 10;
    println!("Envoy held at most {} MiB more", grown >> 10);
    assert!(grown < MOST_MEMORY, "Envoy held {grown} KiB more");
    for (name, peak) in [
        ("the relay", mesh.relay().peak_memory_kib()),
        ("the CLI", bob.process.peak_memory_kib()),
    ] {
        println!("{name} held at most {} MiB", peak / 1024);
        assert!(peak < MOST_MEMORY, "{name} held {peak} KiB");
    }
}

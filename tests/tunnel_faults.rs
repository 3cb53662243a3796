//! What a client gets if the developer's side cannot answer.
//!
//! The mark, and that no mark is ever false.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::tunnel::{
    self, Answer, LocalServer, Machine, Relay, SOON, Wire, ask, developer, eventually, full,
    get_text, h1, h2, repeat, request, within,
};
use http_body_util::BodyExt;
use intercept_tunnel::developer::RequestOutcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// A port without a listener.
async fn dead_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn assert_unavailable(answer: &Answer, reason: &str) {
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("x-intercept-unavailable")
        ),
        (503, reason),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-intercept-served-by"), "", "{answer:?}");
    assert!(
        !answer.headers.contains_key("x-intercept-lost"),
        "{answer:?}"
    );
}

fn assert_lost(answer: &Answer) {
    assert_eq!(answer.status.as_u16(), 502, "{answer:?}");
    assert!(
        answer.headers.contains_key("x-intercept-lost")
            && answer.headers.contains_key("x-intercept-error"),
        "{answer:?}"
    );
    assert!(
        !answer.headers.contains_key("x-intercept-unavailable"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn without_an_address_or_a_tunnel_a_request_is_unavailable() {
    let relay = Relay::start().await;
    for mut client in [h1(relay.data).await, h2(relay.data).await] {
        let mut sent = request("GET", "/", "x", full(""));
        assert_unavailable(&ask(&mut client, sent).await, "no-address");
        sent = request("POST", "/", "66687aadf862bd776c8fc18b8e9f8e20", full("abc"));
        assert_unavailable(&ask(&mut client, sent).await, "no-tunnel");
    }
}

#[tokio::test]
async fn with_nothing_on_the_developers_port_a_request_is_unavailable() {
    let relay = Relay::start().await;
    let port = dead_port().await;
    let mut machine = Machine::up(relay.control, developer(port)).await;
    for mut client in [h1(relay.data).await, h2(relay.data).await] {
        for method in ["GET", "POST"] {
            let answer = ask(
                &mut client,
                request(method, "/x", &machine.address(), full("abc")),
            )
            .await;
            assert_unavailable(&answer, "nothing-listens");
            assert_eq!(
                machine.line().await.outcome,
                RequestOutcome::FellBack(format!("port {port} refused the connection"))
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_listens_on_ipv6_only_is_reached() {
    let relay = Relay::start().await;
    let server = LocalServer::on(TcpListener::bind("[::1]:0").await.unwrap());
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let answer = ask(
        &mut h1(relay.data).await,
        request("GET", "/hello", &machine.address(), full("")),
    )
    .await;
    assert_eq!(answer.text(), "hello");
}

#[tokio::test]
async fn a_request_whose_server_dies_is_lost_and_says_whose_machine_it_was() {
    for method in ["GET", "POST"] {
        let (relay, server) = (Relay::start().await, LocalServer::start().await);
        let mut machine = Machine::up(relay.control, developer(server.port)).await;
        for mut client in [h1(relay.data).await, h2(relay.data).await] {
            let server = LocalServer::start().await;
            let machine = Machine::up(relay.control, developer(server.port)).await;
            let (answer, ()) = tokio::join!(
                ask(
                    &mut client,
                    request(method, "/hang", &machine.address(), full("abc"))
                ),
                async {
                    eventually("the request arrived", async || server.count("/hang") == 1).await;
                    server.kill().await;
                }
            );
            assert_lost(&answer);
            assert_eq!(answer.header("x-intercept-served-by"), "orders-bob");
        }
        server.kill().await;
        let answer = ask(
            &mut h1(relay.data).await,
            request(method, "/hello", &machine.address(), full("")),
        )
        .await;
        assert_unavailable(&answer, "nothing-listens");
        assert!(matches!(
            machine.line().await.outcome,
            RequestOutcome::FellBack(_)
        ));
    }
}

#[tokio::test]
async fn a_lost_grpc_call_is_internal_and_not_a_502() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let mut client = h2(relay.data).await;
    let mut sent = request("POST", "/hang", &machine.address(), full("abc"));
    sent.headers_mut()
        .insert("content-type", "application/grpc+proto".parse().unwrap());
    let (answer, ()) = tokio::join!(ask(&mut client, sent), async {
        eventually("the call arrived", async || server.count("/hang") == 1).await;
        server.kill().await;
    });
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "13"),
        "{answer:?}"
    );
    assert!(
        !answer.header("grpc-message").is_empty() && !answer.header("x-intercept-lost").is_empty(),
        "{answer:?}"
    );
    assert_eq!((answer.body.len(), answer.trailers.len()), (0, 0));
}

#[tokio::test]
async fn requests_under_way_are_lost_with_the_tunnel_and_later_ones_unavailable() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let address = machine.address();
    let (mut one, mut two) = (h1(relay.data).await, h2(relay.data).await);
    let (first, second, ()) = tokio::join!(
        ask(&mut one, request("POST", "/hang", &address, full("abc"))),
        ask(&mut two, request("GET", "/hang", &address, full(""))),
        async {
            eventually("both arrived", async || server.count("/hang") == 2).await;
            machine.running.abort();
            wire.cut();
        }
    );
    for answer in [first, second] {
        assert_lost(&answer);
        assert_eq!(
            answer.header("x-intercept-served-by"),
            "",
            "nobody's machine said this"
        );
    }
    assert_unavailable(
        &ask(&mut one, request("POST", "/hello", &address, full("abc"))).await,
        "no-tunnel",
    );
    eventually("the local connections were closed", async || {
        server.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_began_is_reset_and_not_ended_when_the_tunnel_dies() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let (mut one, mut two) = (h1(relay.data).await, h2(relay.data).await);
    let mut open = Vec::new();
    for client in [&mut one, &mut two] {
        let mut response = client
            .send(request("GET", "/events", &machine.address(), full("")))
            .await
            .unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        open.push(response);
    }
    machine.running.abort();
    wire.cut();
    for mut response in open {
        let next = timeout(SOON, response.body_mut().frame()).await.unwrap();
        assert!(matches!(next, Some(Err(_))), "{next:?}");
    }
}

#[tokio::test]
async fn a_frozen_machine_is_noticed_after_six_seconds() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let mut client = h1(relay.data).await;
    let began = Instant::now();
    let (answer, ()) = tokio::join!(
        within(SOON, async {
            ask(
                &mut client,
                request("GET", "/hang", &machine.address(), full("")),
            )
            .await
        }),
        async {
            eventually("the request arrived", async || server.count("/hang") == 1).await;
            wire.freeze(true);
        }
    );
    assert_lost(&answer);
    assert!(
        (4..9).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
    assert_unavailable(
        &ask(
            &mut client,
            request("GET", "/hello", &machine.address(), full("")),
        )
        .await,
        "no-tunnel",
    );
    wire.freeze(false);
    eventually("the thawed machine came back", async || {
        ask(
            &mut client,
            request("GET", "/hello", &machine.address(), full("")),
        )
        .await
        .status
            == 200
    })
    .await;
}

/// While it has a ping to write and the peer takes nothing, h2 stops reading.
///
/// A read timeout would never fire.
#[tokio::test]
async fn a_machine_that_freezes_under_a_bulk_upload_is_noticed_too() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let mut client = h2(relay.data).await;
    let uploads =
        (0..12).map(|_| request("POST", "/sink", &machine.address(), repeat(b'u', 1 << 32)));
    let sent: Vec<_> = match &mut client {
        tunnel::Client::H2(sender) => uploads
            .map(|mut request| {
                *request.uri_mut() = "http://orders.shop/sink".parse().unwrap();
                tokio::spawn(sender.send_request(request))
            })
            .collect(),
        tunnel::Client::H1(_) => unreachable!(),
    };
    eventually("the uploads run", async || {
        server.read.load(Ordering::SeqCst) > 20 << 20
    })
    .await;
    wire.freeze(true);
    let frozen = Instant::now();
    for answer in sent {
        let answer = timeout(SOON, answer)
            .await
            .expect("an answer after the silence")
            .unwrap()
            .unwrap();
        assert_lost(&Answer::read(answer).await.unwrap());
    }
    assert!(
        (4..9).contains(&frozen.elapsed().as_secs()),
        "{:?}",
        frozen.elapsed()
    );
}

#[tokio::test]
async fn a_bulk_upload_is_no_silence() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let mut machine = Machine::up(relay.control, developer(server.port)).await;
    let mut client = h2(relay.data).await;
    let upload = request("POST", "/sink", &machine.address(), repeat(b'u', 1 << 40));
    let uploading =
        tokio::spawn(async move { client.send(upload).await.map(|response| response.status()) });
    let began = Instant::now();
    let mut before = 0;
    while began.elapsed() < Duration::from_secs(9) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let read = server.read.load(Ordering::SeqCst);
        assert!(
            read > before,
            "the upload stands still after {:?}",
            began.elapsed()
        );
        before = read;
    }
    assert!(!uploading.is_finished());
    assert!(machine.events.try_recv().is_err(), "the tunnel went away");
}

#[tokio::test]
async fn an_idle_tunnel_stays_up() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let mut machine = Machine::up(wire.address, developer(server.port)).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(machine.events.try_recv().is_err());
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
    let answer = ask(
        &mut h1(relay.data).await,
        request("GET", "/hello", &machine.address(), full("")),
    )
    .await;
    assert_eq!(answer.text(), "hello");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_at_the_server() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let mut machine = Machine::up(relay.control, developer(server.port)).await;
    for path in ["/hang", "/events"] {
        for mut client in [h1(relay.data).await, h2(relay.data).await] {
            let before = server.count(path);
            let (answered_tx, answered) = tokio::sync::oneshot::channel();
            let pending = {
                let sent = request("POST", path, &machine.address(), full("abc"));
                tokio::spawn(async move {
                    let response = client.send(sent).await;
                    let _ = answered_tx.send(());
                    // Holds a response that has begun.
                    std::future::pending::<()>().await;
                    drop((response, client));
                })
            };
            eventually("the request arrived", async || {
                server.count(path) == before + 1 && server.open.load(Ordering::SeqCst) == 1
            })
            .await;
            if path == "/events" {
                answered.await.expect("an answer that has begun");
            }
            pending.abort();
            let cancelled = Instant::now();
            eventually("the server noticed", async || {
                server.open.load(Ordering::SeqCst) == 0
            })
            .await;
            assert!(
                cancelled.elapsed() < Duration::from_millis(500),
                "{:?}",
                cancelled.elapsed()
            );
            let expected = if path == "/hang" {
                RequestOutcome::Cancelled
            } else {
                RequestOutcome::Answered
            };
            assert_eq!(machine.line().await.outcome, expected);
        }
    }
    assert_eq!(
        relay
            .metric("injector_relay_requests_total{outcome=\"cancelled\",reason=\"\"}")
            .await,
        2.0
    );
}

/// A client resets its connection, as Envoy does, while every buffer on the way is full.
#[tokio::test]
async fn end_of_a_stalled_upload_is_noticed() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let server = developer(listener.local_addr().unwrap().port());
    let relay = Relay::start().await;
    let machine = Machine::up(relay.control, server).await;
    let path = format!("/tunnels/{}", machine.address());
    let under_way = async || {
        let text = get_text(relay.control, &path).await;
        let described: serde_json::Value = serde_json::from_str(&text).unwrap();
        described["under_way"].as_u64().expect("a tunnel")
    };
    let mut client = TcpStream::connect(relay.data).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\nx-intercept-address: {}\r\n\r\n",
        machine.address()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let sending = async { while client.write_all(&[b'u'; 65536]).await.is_ok() {} };
    assert!(timeout(Duration::from_secs(1), sending).await.is_err());
    assert_eq!(under_way().await, 1);
    client.set_zero_linger().unwrap();
    drop(client);
    let gone = async {
        while under_way().await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = timeout(Duration::from_secs(2), gone).await;
    gone.expect("gone at the relay");
    let rest = timeout(SOON, server.read_to_end(&mut Vec::new())).await;
    let _ = rest.expect("gone at the developer's end");
}

#[tokio::test]
async fn a_burst_of_cancelled_requests_does_not_drop_the_tunnel() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let tunnel::Client::H2(mut sender) = h2(relay.data).await else {
        unreachable!()
    };
    // While the machine reads nothing, so that the resets arrive together with their requests.
    wire.freeze(true);
    let mut burst = Vec::new();
    for _ in 0..256 {
        let mut sent = request("GET", "/hang", &machine.address(), full(""));
        *sent.uri_mut() = "http://orders.shop/hang".parse().unwrap();
        burst.push(tokio::spawn(sender.send_request(sent)));
    }
    let line = "injector_relay_requests_total{outcome=\"cancelled\",reason=\"\"}";
    tokio::time::sleep(Duration::from_millis(300)).await;
    burst.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("all were cancelled", async || {
        relay.metric(line).await == 256.0
    })
    .await;
    wire.freeze(false);
    let answer = ask(
        &mut h1(relay.data).await,
        request("GET", "/hello", &machine.address(), full("")),
    )
    .await;
    assert_eq!(answer.text(), "hello");
    assert_eq!(
        wire.connections.load(Ordering::SeqCst),
        1,
        "it was another tunnel"
    );
    assert_eq!(server.count("/hello"), 1);
}

/// Sends a head over a raw socket.
///
/// Returns what comes back within a while, or as soon as it contains `until`.
async fn raw(relay: &Relay, head: &str, until: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(relay.data).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = read_until(&mut stream, until).await;
    (stream, text)
}

async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&text).contains(until) {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                read => text.extend_from_slice(&buffer[..read]),
            }
        }
    };
    timeout(SOON, reading)
        .await
        .unwrap_or_else(|_| panic!("no {until:?}"));
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn no_100_is_sent_before_an_unavailable_answer() {
    let relay = Relay::start().await;
    let machine = Machine::up(relay.control, developer(dead_port().await)).await;
    for address in [
        machine.address(),
        "66687aadf862bd776c8fc18b8e9f8e20".to_owned(),
    ] {
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 900000\r\nx-intercept-address: {address}\r\n\r\n"
        );
        let (_stream, text) = raw(&relay, &head, "x-intercept-unavailable").await;
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
        assert!(!text.contains("100"), "{text}");
    }
}

#[tokio::test]
async fn one_100_is_sent_once_the_server_has_the_connection_and_it_sees_no_expectation() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 3\r\nx-intercept-address: {}\r\n\r\n",
            machine.address()
        )
    };
    let (mut stream, text) = raw(&relay, &head("/echo"), "\r\n\r\n").await;
    assert_eq!(text, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    let text = read_until(&mut stream, "abc").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(!text.contains("100 Continue"), "{text}");
    assert_eq!(server.count("/echo"), 1);

    let (mut stream, _) = raw(&relay, &head("/headers"), "\r\n\r\n").await;
    stream.write_all(b"abc").await.unwrap();
    let text = read_until(&mut stream, "content-length: 3").await;
    assert!(!text.to_lowercase().contains("expect:"), "{text}");
}

#[tokio::test]
async fn an_early_answer_outruns_no_large_body() {
    let relay = Relay::start().await;
    let machine = Machine::up(relay.control, developer(dead_port().await)).await;
    // One is answered before anything was read, the other one while the body is on its way.
    let none = "66687aadf862bd776c8fc18b8e9f8e20".to_owned();
    let mut intact = 0;
    for (address, reason) in [(none, "no-tunnel"), (machine.address(), "nothing-listens")] {
        for _ in 0..60 {
            let mut stream = TcpStream::connect(relay.data).await.unwrap();
            // In small pieces with reads in between, as from a client on a real network: the response
            // arrives before most of the body, and the connection must still take the rest.
            let head = format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4194304\r\nx-intercept-address: {address}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&[1; 1 << 10]).await.unwrap();
            let text = read_until(&mut stream, "\r\n\r\n").await;
            assert!(
                text.starts_with("HTTP/1.1 503") && text.contains(reason),
                "{text}"
            );
            assert!(text.contains("connection: close"), "{text}");
            for _ in 0..4095 {
                stream.write_all(&[1; 1 << 10]).await.unwrap();
            }
            intact += 1;
        }
    }
    assert_eq!(intact, 120);
}

#[tokio::test]
async fn an_early_answer_of_the_server_passes_with_its_status() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    for mut client in [h1(relay.data).await, h2(relay.data).await] {
        let answer = ask(
            &mut client,
            request(
                "POST",
                "/early",
                &machine.address(),
                full(Bytes::from(vec![1; 8_000])),
            ),
        )
        .await;
        assert_eq!((answer.status.as_u16(), answer.text()), (413, "too large"));
        assert!(client.is_usable().await);
    }
}

/// A response that hyper generates has no mark; Envoy would forward it as the developer's response.
#[tokio::test]
async fn a_request_that_nobody_can_read_is_unavailable() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let address = machine.address();
    let wide = format!("x: {}\r\n", "v".repeat(3_000_000));
    for (line, headers, body, reason) in [
        ("GET /a\u{1}b HTTP/1.1", "", 0, "malformed"),
        ("POST / HTTP/1.1", "a b: c\r\n", 200_000, "malformed"),
        ("GET / HTTP/1.1", wide.as_str(), 0, "headers-too-large"),
    ] {
        // With and without a request before it on the same connection.
        for before in [0, 1] {
            let mut stream = TcpStream::connect(relay.data).await.unwrap();
            for _ in 0..before {
                let head = format!(
                    "GET /hello HTTP/1.1\r\nhost: a\r\nx-intercept-address: {address}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                read_until(&mut stream, "hello").await;
            }
            let head = format!(
                "{line}\r\nhost: a\r\nx-intercept-address: {address}\r\ncontent-length: {body}\r\n{headers}\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'b'; body]).await.unwrap();
            let mut text = String::new();
            let read = timeout(SOON, stream.read_to_string(&mut text)).await;
            let read = read.unwrap_or_else(|_| panic!("{line:?} after {before}: no end"));
            read.expect("in good order");
            assert!(text.starts_with("HTTP/1.1 503 "), "{line}: {text}");
            let mark = format!("\r\nx-intercept-unavailable: {reason}\r\n");
            assert!(text.contains(&mark), "{line}: {text}");
            assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
        }
    }
    let line = "injector_relay_requests_total{outcome=\"unavailable\",reason=\"malformed\"}";
    assert_eq!(relay.metric(line).await, 4.0);
}

//! The life of tunnels: reconnects, takeovers, shutdowns and refusals.
//!
//! Also who may use one, and what the control port reports.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::tunnel::{
    self, Answer, LocalServer, Machine, Relay, SOON, Wire, ask, developer, eventually, full,
    get_text, h1, h1_from, h2, request,
};
use http_body::Frame;
use intercept_tunnel::ADDRESS;
use intercept_tunnel::developer::{Developer, Event, Stream, TunnelError};
use intercept_tunnel::relay::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

fn is_up(event: &Event) -> bool {
    matches!(event, Event::Up { .. })
}

async fn says_hello(relay: &Relay, address: &str) -> bool {
    ask(
        &mut h1(relay.data).await,
        request("GET", "/hello", address, full("")),
    )
    .await
    .status
        == 200
}

/// Starts a request with an incomplete body. Returns what completes it.
async fn half_a_request(
    relay: &Relay,
    server: &LocalServer,
    address: &str,
) -> impl AsyncFnOnce() -> Answer + use<> {
    let (frames, body) = tunnel::channel();
    let sent = request("POST", "/echo", address, body);
    let mut client = h2(relay.data).await;
    let before = server.count("/echo");
    let asking = tokio::spawn(async move { Answer::read(client.send(sent).await.unwrap()).await });
    frames
        .send(Frame::data(Bytes::from_static(b"one ")))
        .await
        .unwrap();
    eventually("the request arrived", async || {
        server.count("/echo") == before + 1
    })
    .await;
    async move || {
        frames
            .send(Frame::data(Bytes::from_static(b"two")))
            .await
            .unwrap();
        drop(frames);
        timeout(SOON, asking).await.unwrap().unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_machine_whose_tunnel_is_cut_says_so_and_comes_back() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let mut machine = Machine::up(wire.address, developer(server.port)).await;
    for _ in 0..3 {
        wire.cut();
        let Event::Away { retry_in, reason } = machine
            .wait_for("away", |event| matches!(event, Event::Away { .. }))
            .await
        else {
            unreachable!()
        };
        assert!(retry_in <= Duration::from_secs(5) && !reason.is_empty());
        machine.wait_for("up", is_up).await;
        assert!(says_hello(&relay, &machine.address()).await);
    }
}

#[tokio::test]
async fn a_machine_that_was_there_before_its_relay_finds_it() {
    let (server, control) = (
        LocalServer::start().await,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
    );
    let address = control.local_addr().unwrap();
    drop(control);
    let mut machine = Machine::start(address, developer(server.port));
    machine
        .wait_for("away", |event| matches!(event, Event::Away { .. }))
        .await;
    let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let relay = Relay::on(
        data,
        TcpListener::bind(address).await.unwrap(),
        Options::default(),
    );
    machine.wait_for("up", is_up).await;
    assert!(says_hello(&relay, &machine.address()).await);
}

#[tokio::test]
async fn a_leaving_machine_ends_what_runs_and_takes_nothing_new() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let address = machine.address();
    let finish = half_a_request(&relay, &server, &address).await;
    let running = machine.stop();
    eventually("the relay has no tunnel", async || {
        get_text(relay.control, &format!("/tunnels/{address}"))
            .await
            .contains("false")
    })
    .await;
    let refused = ask(
        &mut h1(relay.data).await,
        request("GET", "/hello", &address, full("")),
    )
    .await;
    assert_eq!(refused.header("x-intercept-unavailable"), "no-tunnel");
    assert!(!running.is_finished());
    assert_eq!(finish().await.text(), "one two");
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_leaving_machine_waits_for_what_runs_only_so_long() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(
        relay.control,
        Developer {
            grace: Duration::from_millis(300),
            ..developer(server.port)
        },
    )
    .await;
    let mut client = h1(relay.data).await;
    let sent = request("GET", "/hang", &machine.address(), full(""));
    let hanging = tokio::spawn(async move { ask(&mut client, sent).await });
    eventually("the request arrived", async || server.count("/hang") == 1).await;
    let began = Instant::now();
    timeout(SOON, machine.stop())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        (300..2_000).contains(&began.elapsed().as_millis()),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        timeout(SOON, hanging)
            .await
            .unwrap()
            .unwrap()
            .status
            .as_u16(),
        502
    );
}

#[tokio::test]
async fn a_leaving_relay_ends_what_runs_and_sends_its_machines_away() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let mut machine = Machine::up(relay.control, developer(server.port)).await;
    let finish = half_a_request(&relay, &server, &machine.address()).await;
    let stopping = relay.stop();
    machine
        .wait_for("away", |event| matches!(event, Event::Away { .. }))
        .await;
    assert!(!stopping.is_finished());
    assert_eq!(finish().await.text(), "one two");
    timeout(Duration::from_secs(5), stopping)
        .await
        .expect("no longer than what runs")
        .unwrap();
}

#[tokio::test]
async fn leaving_relay_answers_what_it_cuts_off() {
    let options = Options {
        grace: Duration::from_millis(300),
        ..Options::default()
    };
    let (relay, server) = (Relay::with(options).await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let mut answers = Vec::new();
    for (method, client) in [
        ("POST", h1(relay.data).await),
        ("POST", h2(relay.data).await),
    ] {
        let mut client = client;
        let sent = request(method, "/hang", &machine.address(), full("order"));
        answers.push(tokio::spawn(async move { ask(&mut client, sent).await }));
    }
    eventually("both arrived", async || server.count("/hang") == 2).await;
    let stopping = relay.stop();
    for answer in answers {
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status.as_u16(), 502);
        assert!(!answer.header("x-intercept-error").is_empty());
    }
    timeout(SOON, stopping).await.unwrap().unwrap();
}

/// Strict clients do not accept `connection: upgrade` with `close` as a switch.
///
/// hyper would write both.
#[tokio::test]
async fn a_leaving_relay_switches_no_protocols() {
    let relay = Relay::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut machine = Machine::up(relay.control, developer(port)).await;
    let mut client = TcpStream::connect(relay.data).await.unwrap();
    let ask = format!(
        "GET /socket HTTP/1.1\r\nhost: a\r\n{ADDRESS}: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        machine.address()
    );
    client.write_all(ask.as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut head = [0; 16];
    server.read_exact(&mut head).await.unwrap();
    let stopping = relay.stop();
    machine
        .wait_for("away", |event| matches!(event, Event::Away { .. }))
        .await;
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
    server.write_all(answer).await.unwrap();
    let mut answer = String::new();
    let read = timeout(SOON, client.read_to_string(&mut answer)).await;
    read.expect("it ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("x-intercept-unavailable: leaving"),
        "{answer}"
    );
    timeout(SOON, stopping)
        .await
        .expect("nothing runs")
        .unwrap();
}

/// As when the relay's pod is replaced.
///
/// The next relay is up before the last request on the old one has ended.
#[tokio::test]
async fn a_machine_of_a_leaving_relay_opens_the_next_tunnel_before_it_leaves_the_last() {
    let (old, new, server) = (
        Relay::start().await,
        Relay::start().await,
        LocalServer::start().await,
    );
    let target = Arc::new(AtomicU16::new(old.control.port()));
    let dialled = Arc::clone(&target);
    let dial = move || {
        let port = dialled.load(Ordering::SeqCst);
        async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
    };
    let mut machine = Machine::over(dial, developer(server.port));
    machine.wait_for("up", is_up).await;
    let finish = half_a_request(&old, &server, &machine.address()).await;
    target.store(new.control.port(), Ordering::SeqCst);
    let stopping = old.stop();
    let next = machine.wait_for("up or away", |event| {
        is_up(event) || matches!(event, Event::Away { .. })
    });
    assert!(is_up(&next.await), "there was a time without a tunnel");
    assert!(says_hello(&new, &machine.address()).await);
    assert!(!stopping.is_finished());
    assert_eq!(finish().await.text(), "one two");
    timeout(SOON, stopping).await.unwrap().unwrap();
    assert!(says_hello(&new, &machine.address()).await);
}

#[tokio::test]
async fn a_second_program_is_refused_for_good_while_the_first_lives() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let offered = developer(server.port);
    let machine = Machine::up(relay.control, offered.clone()).await;
    let second = Machine::start(relay.control, offered.clone());
    let error = timeout(SOON, second.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&error, TunnelError::Refused { status: 409, reason } if reason.contains("orders-bob")),
        "{error:?}"
    );
    timeout(SOON, machine.stop())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let third = Machine::up(relay.control, offered).await;
    assert!(says_hello(&relay, &third.address()).await);
}

/// Requests run all the while: the developer's server must answer each exactly once.
#[tokio::test]
async fn a_take_over_under_load_loses_nothing() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let offered = Developer {
        replace: true,
        ..developer(server.port)
    };
    let mut machine = Machine::up(relay.control, offered.clone()).await;
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load: Vec<_> = (0..8)
        .map(|n| {
            let (stop, sent, address, data) = (
                Arc::clone(&stop),
                Arc::clone(&sent),
                machine.address(),
                relay.data,
            );
            tokio::spawn(async move {
                let mut client = if n % 2 == 0 {
                    h1(data).await
                } else {
                    h2(data).await
                };
                while !stop.load(Ordering::SeqCst) {
                    let answer =
                        ask(&mut client, request("POST", "/echo", &address, full("abc"))).await;
                    assert_eq!(
                        (answer.status.as_u16(), answer.text()),
                        (200, "abc"),
                        "{answer:?}"
                    );
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let before = sent.load(Ordering::SeqCst);
        eventually("the load runs", async || {
            sent.load(Ordering::SeqCst) > before + 50
        })
        .await;
        let next = Machine::up(relay.control, offered.clone()).await;
        machine
            .wait_for("replaced", |event| matches!(event, Event::Replaced))
            .await;
        let ended = timeout(SOON, machine.running).await.unwrap().unwrap();
        assert!(
            matches!(ended, Err(TunnelError::Replaced { .. })),
            "{ended:?}"
        );
        machine = next;
    }
    stop.store(true, Ordering::SeqCst);
    for client in load {
        timeout(SOON, client).await.unwrap().unwrap();
    }
    assert_eq!(server.count("/echo"), sent.load(Ordering::SeqCst));
}

#[tokio::test]
async fn only_the_named_identity_may_use_a_tunnel_and_only_by_way_of_the_sidecar() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let identity = Some("spiffe://cluster.local/ns/shop/sa/orders".to_owned());
    let machine = Machine::up(
        relay.control,
        Developer {
            identity: identity.clone(),
            ..developer(server.port)
        },
    )
    .await;
    let (orders, other) = (identity.clone().unwrap(), "spiffe://other".to_owned());
    let (sidecar, port_forward) = (Ipv4Addr::new(127, 0, 0, 6), Ipv4Addr::LOCALHOST);
    for (source, peer, allowed) in [
        (sidecar, Some(&orders), true),
        (sidecar, Some(&other), false),
        (sidecar, None, false),
        // Past the sidecar any client can send this.
        (port_forward, Some(&orders), false),
        (Ipv4Addr::new(127, 0, 0, 5), Some(&orders), false),
        (port_forward, None, false),
    ] {
        let mut sent = request("GET", "/hello", &machine.address(), full(""));
        if let Some(peer) = peer {
            sent.headers_mut()
                .insert("x-intercept-peer", peer.parse().unwrap());
        }
        let answer = ask(&mut h1_from(source, relay.data).await, sent).await;
        let expected = if allowed {
            (200, "")
        } else {
            (503, "identity")
        };
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.header("x-intercept-unavailable")
            ),
            expected,
            "{source} {peer:?}"
        );
    }
    assert_eq!(server.count("/hello"), 1);
}

#[tokio::test]
async fn the_control_port_tells_whether_a_tunnel_is_up() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    assert_eq!(get_text(relay.control, "/healthz").await, "ok\n");
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let path = format!("/tunnels/{}", machine.address());
    assert!(says_hello(&relay, &machine.address()).await);
    let text = get_text(relay.control, &path).await;
    for part in [
        "\"up\":true",
        "\"name\":\"orders-bob\"",
        "\"requests\":1",
        "\"since\":1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    timeout(SOON, machine.stop())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    eventually("the tunnel is down", async || {
        get_text(relay.control, &path)
            .await
            .contains("\"up\":false")
    })
    .await;
    let mut client = h1(relay.control).await;
    for (method, path, status) in [
        ("GET", "/tunnels/x", 400),
        ("GET", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("GET", "/tunnel", 426),
    ] {
        assert_eq!(
            ask(&mut client, request(method, path, "", full("")))
                .await
                .status
                .as_u16(),
            status,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn the_relay_counts_tunnels_requests_and_bytes() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let mut client = h1(relay.data).await;
    for (path, address) in [
        ("/hello", machine.address()),
        ("/sink", machine.address()),
        ("/", "66687aadf862bd776c8fc18b8e9f8e20".to_owned()),
    ] {
        ask(
            &mut client,
            request("POST", path, &address, full(vec![1; 100_000])),
        )
        .await;
    }
    assert_eq!(relay.metric("injector_relay_tunnels").await, 1.0);
    assert_eq!(
        relay
            .metric("injector_relay_requests_total{outcome=\"answered\",reason=\"\"}")
            .await,
        2.0
    );
    assert_eq!(
        relay
            .metric("injector_relay_requests_total{outcome=\"unavailable\",reason=\"no-tunnel\"}")
            .await,
        1.0
    );
    assert!(
        relay
            .metric("injector_relay_tunnel_bytes_total{direction=\"to_developer\"}")
            .await
            > 100_000.0
    );
    assert!(
        relay
            .metric("injector_relay_tunnel_bytes_total{direction=\"from_developer\"}")
            .await
            > 10.0
    );
    timeout(SOON, machine.stop())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    eventually("no tunnel is left", async || {
        relay.metric("injector_relay_tunnels").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_full_relay_takes_a_tunnel_when_another_ends() {
    let (relay, server) = (
        Relay::with(Options {
            tunnels: 1,
            ..Options::default()
        })
        .await,
        LocalServer::start().await,
    );
    let first = Machine::up(relay.control, developer(server.port)).await;
    let mut second = Machine::start(relay.control, developer(server.port));
    // A client that knows another relay may go there.
    second
        .wait_for("full", |event| matches!(event, Event::Full))
        .await;
    let Event::Away { reason, .. } = second
        .wait_for("away", |event| matches!(event, Event::Away { .. }))
        .await
    else {
        unreachable!()
    };
    assert!(reason.contains("as many tunnels"), "{reason}");
    assert!(says_hello(&relay, &first.address()).await);
    timeout(SOON, first.stop()).await.unwrap().unwrap().unwrap();
    second.wait_for("up", is_up).await;
}

#[tokio::test]
async fn a_name_that_no_header_can_carry_is_refused() {
    let relay = Relay::start().await;
    for name in ["", "a b", "a\nb", "bücher"] {
        let machine = Machine::start(
            relay.control,
            Developer {
                name: name.to_owned(),
                ..developer(1)
            },
        );
        let error = timeout(SOON, machine.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err();
        assert!(
            matches!(error, TunnelError::InvalidName { .. }),
            "{error:?}"
        );
    }
}

/// Unfinished handshakes hold little, and keep no other client out.
///
/// Their clients forward a port to the relay and send nothing, or too much.
#[tokio::test]
async fn unfinished_handshakes_are_bounded() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let mut unfinished = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(relay.control).await.unwrap();
        let head = format!("GET /tunnel HTTP/1.1\r\nx-long: {}", "a".repeat(40_000));
        let _ = stream.write_all(head.as_bytes()).await;
        unfinished.push(stream);
    }
    for stream in &mut unfinished {
        let mut answer = Vec::new();
        // Closed, with a response or by a reset: none of the head is kept.
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("the relay reads no further");
    }
    let machine = Machine::up(relay.control, developer(server.port)).await;
    assert!(says_hello(&relay, &machine.address()).await);
}

/// One secret, a hundred tunnels.
///
/// Each takes the address over from the previous one, and those must not pile up.
#[tokio::test]
async fn tunnels_of_one_address_are_bounded() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let offered = Developer {
        replace: true,
        ..developer(server.port)
    };
    let mut open = Vec::new();
    let refusal = loop {
        let mut stream = TcpStream::connect(relay.control).await.unwrap();
        let head = format!(
            "GET /tunnel HTTP/1.1\r\nhost: relay\r\nconnection: upgrade\r\nupgrade: intercept-h2\r\nx-intercept-tunnel-version: {}\r\n\
             x-intercept-tunnel-secret: {}\r\nx-intercept-tunnel-name: by-hand\r\nx-intercept-tunnel-instance: {}\r\nx-intercept-tunnel-replace: yes\r\n\r\n",
            intercept_tunnel::VERSION,
            offered.secret.expose(),
            open.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            break String::from_utf8(answer).unwrap();
        }
        let serving = h2::server::Builder::new().handshake::<_, Bytes>(stream);
        let mut tunnel = serving.await.unwrap();
        let (_, mut respond) = tunnel.accept().await.unwrap().unwrap();
        let pulse = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        let serving = tokio::spawn(async move { while tunnel.accept().await.is_some() {} });
        open.push((pulse, serving));
        eventually("the tunnel is up", async || {
            relay.metric("injector_relay_tunnels").await == 1.0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(open.len() < 50, "as many as anybody wants");
    };
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    for (_, serving) in open {
        serving.abort();
    }
    let machine = Machine::up(relay.control, offered).await;
    assert!(says_hello(&relay, &machine.address()).await);
}

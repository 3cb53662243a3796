//! Effects that only hours show, in seconds.
//!
//! Tunnels of many beats, streams of many small messages, many cancelled requests.
//! `BEATS`, `MESSAGES` and `CANCELS` make the short form longer; a tunnel must survive 100 000 of each.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::link::{Weather, link};
use harness::tunnel::{
    self, Answer, LocalServer, Machine, Relay, SOON, Wire, ask, developer, eventually, full, h2,
    request,
};
use http_body::Frame;
use http_body_util::BodyExt;
use intercept_tunnel::Tempo;
use intercept_tunnel::developer::{Developer, Event};
use intercept_tunnel::relay::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The number of repetitions, from the environment if set.
fn count(variable: &str, short: u32) -> u32 {
    std::env::var(variable).map_or(short, |count| count.parse().expect(variable))
}

/// Beats as fast as possible, and all else as in production.
fn fast() -> Tempo {
    Tempo {
        beat: Duration::from_millis(1),
        ..Tempo::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnel_outlives_its_beats() {
    let beats = count("BEATS", 5_000);
    let options = Options {
        tempo: fast(),
        ..Options::default()
    };
    let (relay, server) = (Relay::with(options).await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let offered = Developer {
        tempo: fast(),
        ..developer(server.port)
    };
    let machine = Machine::up(wire.address, offered).await;
    let (frames, body) = tunnel::channel();
    let held = request("POST", "/echo", &machine.address(), body);
    let mut client = h2(relay.data).await;
    let held = tokio::spawn(async move { Answer::read(client.send(held).await?).await });
    frames
        .send(Frame::data(Bytes::from_static(b"one ")))
        .await
        .unwrap();
    let began = Instant::now();
    let mut client = h2(relay.data).await;
    while began.elapsed() < fast().beat * beats {
        let asked = request("GET", "/hello", &machine.address(), full(""));
        assert_eq!(
            ask(&mut client, asked).await.status,
            200,
            "after {:?}",
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = "injector_relay_tunnel_bytes_total{direction=\"from_developer\"}";
    let least = f64::from(beats) * 9.0 / 2.0;
    eventually("the beats were sent", async || {
        relay.metric(sent).await > least
    })
    .await;
    frames
        .send(Frame::data(Bytes::from_static(b"two")))
        .await
        .unwrap();
    drop(frames);
    let answer = timeout(SOON, held).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.text(), "one two");
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

/// A developer's server that accepts connections and passes each to `serve`.
async fn raw_server<F>(serve: fn(TcpStream) -> F) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// Requests `path` and reads the response body up to the first error. Returns its size.
async fn read_size(relay: &Relay, address: &str, path: &str) -> usize {
    let mut client = h2(relay.data).await;
    let mut asked = request("GET", path, address, full(""));
    asked
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    let mut response = client.send(asked).await.unwrap();
    assert_eq!(response.status(), 200, "{response:?}");
    let mut size = 0;
    while let Some(frame) = response.body_mut().frame().await {
        size += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    size
}

/// Serves a gRPC stream of small messages, as fast as it can write.
async fn tiny_frames(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let response = http::Response::new(());
        let mut body = respond.send_response(response, false).unwrap();
        for _ in 0..count("MESSAGES", 20_000) {
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_messages_wait_for_slow_client() {
    let (relay, port) = (Relay::start().await, raw_server(tiny_frames).await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(port)).await;
    let mut client = h2(relay.data).await;
    let mut asked = request("GET", "/", &machine.address(), full(""));
    let grpc = "application/grpc".parse().unwrap();
    asked.headers_mut().insert("content-type", grpc);
    let mut response = client.send(asked).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut size = 0;
    while let Some(frame) = response.body_mut().frame().await {
        size += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(size, count("MESSAGES", 20_000) as usize);
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

/// An HTTP/2 server that flushes without data.
async fn empty_frames(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let response = http::Response::new(());
        let mut body = respond.send_response(response, false).unwrap();
        for _ in 0..60 {
            body.send_data(Bytes::new(), false).unwrap();
        }
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
    }
}

#[tokio::test]
async fn empty_frames_of_a_server_keep_the_tunnel() {
    let (relay, port) = (Relay::start().await, raw_server(empty_frames).await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(port)).await;
    for _ in 0..10 {
        assert_eq!(read_size(&relay, &machine.address(), "/").await, 1);
    }
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn empty_frames_of_a_client_keep_the_tunnel() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    for _ in 0..10 {
        let (frames, body) = tunnel::channel();
        let sent = request("POST", "/echo", &machine.address(), body);
        let mut client = h2(relay.data).await;
        let asking = tokio::spawn(async move { ask(&mut client, sent).await });
        for _ in 0..60 {
            frames.send(Frame::data(Bytes::new())).await.unwrap();
        }
        frames
            .send(Frame::data(Bytes::from_static(b"x")))
            .await
            .unwrap();
        drop(frames);
        assert_eq!(asking.await.unwrap().text(), "x");
    }
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

/// Each is cancelled with most of its response on the way.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_downloads_keep_the_tunnel() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let mut client = h2(relay.data).await;
    for _ in 0..count("CANCELS", 2_000) / 100 {
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..100 {
            asking.spawn(client.start(request(
                "GET",
                "/big/50000000",
                &machine.address(),
                full(""),
            )));
        }
        let mut open = Vec::new();
        while let Some(response) = timeout(SOON, asking.join_next()).await.unwrap() {
            let response = response.unwrap().unwrap();
            assert_eq!(response.status(), 200, "{response:?}");
            open.push(response);
        }
        drop(open);
    }
    eventually("all were given up", async || {
        server.open.load(Ordering::SeqCst) == 0
    })
    .await;
    let asked = request("GET", "/hello", &machine.address(), full(""));
    assert_eq!(ask(&mut client, asked).await.text(), "hello");
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

/// Each is answered while its body is on the way, and its body is not read.
#[tokio::test(flavor = "multi_thread")]
async fn early_answers_to_uploads_keep_the_tunnel() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    for _ in 0..count("CANCELS", 1_000) / 100 {
        let mut asking = tokio::task::JoinSet::new();
        let mut client = h2(relay.data).await;
        for _ in 0..100 {
            let mut sent = request(
                "POST",
                "/early",
                &machine.address(),
                tunnel::repeat(b'u', 300_000),
            );
            // Over HTTP/2 to the server as well.
            let grpc = "application/grpc".parse().unwrap();
            sent.headers_mut().insert("content-type", grpc);
            asking.spawn(client.start(sent));
        }
        while let Some(answer) = timeout(SOON, asking.join_next()).await.unwrap() {
            let answer = answer.unwrap().unwrap();
            assert_eq!(answer.status(), 413, "{answer:?}");
        }
    }
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

/// Switches to WebSocket and echoes every byte.
async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer).await;
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let _ = stream.write_all(answer).await;
    while let Ok(size @ 1..) = stream.read(&mut buffer).await {
        let _ = stream.write_all(&buffer[..size]).await;
    }
}

#[tokio::test]
async fn websocket_of_tiny_messages_keeps_the_tunnel() {
    let (relay, port) = (Relay::start().await, raw_server(echo).await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(port)).await;
    let mut socket = TcpStream::connect(relay.data).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-intercept-address: {}\r\n\r\n",
        machine.address()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    for _ in 0..count("MESSAGES", 5_000) {
        socket.write_all(b"x").await.unwrap();
        let byte = timeout(SOON, socket.read_u8()).await.unwrap();
        assert_eq!(byte.unwrap(), b'x');
    }
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn silent_tunnel_takes_nothing_unsafe() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let address = machine.address();
    let mut client = h2(relay.data).await;
    let post = |path| request("POST", path, &address, full("abc"));
    assert_eq!(ask(&mut client, post("/echo")).await.text(), "abc");
    wire.freeze(true);
    let frozen = Instant::now();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let asked = Instant::now();
        let answer = ask(&mut client, request(method, "/echo", &address, full(""))).await;
        let mark = answer.header("x-intercept-unavailable");
        assert_eq!((answer.status.as_u16(), mark), (503, "suspect"), "{method}");
        assert!(asked.elapsed() < Duration::from_millis(300), "at once");
    }
    // A request that may be repeated still waits for a machine that is only slow.
    let mut waiting = h2(relay.data).await;
    let safe = request("GET", "/hello", &address, full(""));
    let safe = tokio::spawn(async move { ask(&mut waiting, safe).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!safe.is_finished() && frozen.elapsed() < Duration::from_secs(5));
    wire.freeze(false);
    assert_eq!(timeout(SOON, safe).await.unwrap().unwrap().text(), "hello");
    assert_eq!(ask(&mut client, post("/echo")).await.text(), "abc");
    assert_eq!(server.count("/echo"), 2);
    assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnel_is_followed_by_another_before_its_numbers_end() {
    let tempo = Tempo {
        requests: 100,
        ..Tempo::default()
    };
    let options = Options {
        tempo,
        ..Options::default()
    };
    let (relay, server) = (Relay::with(options).await, LocalServer::start().await);
    let wire = Wire::to(relay.control).await;
    let machine = Machine::up(wire.address, developer(server.port)).await;
    let mut client = h2(relay.data).await;
    for number in 0..1_000 {
        let sent = request("POST", "/echo", &machine.address(), full("abc"));
        let answer = ask(&mut client, sent).await;
        assert_eq!(answer.text(), "abc", "{number}: {answer:?}");
    }
    let opened = wire.connections.load(Ordering::SeqCst);
    assert!((8..=11).contains(&opened), "{opened} tunnels");
}

/// Unread uploads on a link of 500 kB/s, and unread downloads.
///
/// Neither makes a tunnel look dead or suspect.
#[tokio::test(flavor = "multi_thread")]
async fn beats_pass_bulk_and_stalled_readers() {
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let slow = Weather {
        delay: Duration::from_millis(50),
        loss: 0.0,
        rate: 500_000,
    };
    let machine = Machine::up(link(relay.control, slow).await, developer(server.port)).await;
    let address = machine.address();
    let mut client = h2(relay.data).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let asked = request("GET", "/big/100000000", &address, full(""));
        stalled.push(timeout(SOON, client.send(asked)).await.unwrap().unwrap());
    }
    for _ in 0..4 {
        let upload = request("POST", "/sink", &address, tunnel::repeat(b'u', 1 << 30));
        let mut client = h2(relay.data).await;
        tokio::spawn(async move { client.send(upload).await.map(drop) });
    }
    let (mut machine, mut suspect, began) = (machine, 0, Instant::now());
    while began.elapsed() < Duration::from_secs(15) {
        let asked = request("POST", "/status/204", &address, full(""));
        let mut client = h2(relay.data).await;
        if let Ok(answer) = timeout(Duration::from_millis(200), client.send(asked)).await {
            suspect += u32::from(answer.unwrap().status() == 503);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while let Ok(event) = machine.events.try_recv() {
        assert!(!matches!(event, Event::Away { .. }), "{event:?}");
    }
    assert_eq!(
        suspect, 0,
        "requests were kept from a machine that is there"
    );
    drop(stalled);
}

/// `SECONDS` sets a longer duration.
#[tokio::test(flavor = "multi_thread")]
async fn bad_link_kills_no_tunnel() {
    let weather = Weather {
        delay: Duration::from_millis(300),
        loss: 0.05,
        rate: 1_000_000,
    };
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let control = link(relay.control, weather).await;
    let mut machines = Vec::new();
    for _ in 0..20 {
        machines.push(Machine::start(control, developer(server.port)));
    }
    for machine in &mut machines {
        machine
            .wait_for("up", |event| matches!(event, Event::Up { .. }))
            .await;
    }
    let (mut client, mut asked, mut suspect) = (h2(relay.data).await, 0, 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(count("SECONDS", 15).into()) {
        for machine in &machines {
            // A suspect tunnel responds at once, any other one not within 600 ms.
            let sent = request("POST", "/status/204", &machine.address(), full(""));
            let answer = timeout(Duration::from_millis(20), client.send(sent)).await;
            asked += 1;
            suspect += u32::from(answer.is_ok_and(|answer| answer.unwrap().status() == 503));
        }
    }
    for machine in &mut machines {
        while let Ok(event) = machine.events.try_recv() {
            assert!(!matches!(event, Event::Away { .. }), "{event:?}");
        }
    }
    println!("suspect {suspect} times of {asked}");
    assert!(suspect * 5 < asked, "suspect {suspect} times of {asked}");
}

//! How long and how much the relay keeps of what a client began and does not continue.
//!
//! Minutes pass by moving the runtime's clock.

use std::time::Duration;

use harness::fidelity::frames::{PREFACE, opening};
use harness::tunnel::{
    LocalServer, Machine, Relay, SOON, ask, developer, full, get_text, h1, request,
};
use intercept_tunnel::developer::Developer;
use intercept_tunnel::relay::Options;
use intercept_tunnel::{Secret, Tempo, VERSION};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Lets this much time pass, after earlier input has arrived.
async fn pass(time: Duration) {
    sleep(Duration::from_millis(50)).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Connects and sends these bytes.
async fn sending(to: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Has the other side closed the connection, or does it so within `soon`?
async fn is_closed(stream: &mut TcpStream, soon: Duration) -> bool {
    let mut rest = Vec::new();
    timeout(soon, stream.read_to_end(&mut rest)).await.is_ok()
}

async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
}

/// A tempo without limits on silence.
fn patient() -> Tempo {
    let day = Duration::from_secs(86_400);
    Tempo {
        suspect: day,
        silence: day,
        ..Tempo::default()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn begun_heads_end_after_a_minute() {
    let options = Options {
        tempo: patient(),
        ..Options::default()
    };
    let (relay, server) = (Relay::with(options).await, LocalServer::start().await);
    let offered = Developer {
        tempo: patient(),
        ..developer(server.port)
    };
    let machine = Machine::up(relay.control, offered).await;
    let hello = format!(
        "GET /hello HTTP/1.1\r\nhost: a\r\nx-intercept-address: {}\r\n\r\n",
        machine.address()
    );
    let half = &hello.as_bytes()[..hello.len() - 4];
    let http2 = [PREFACE, &opening()].concat();
    let mut begun = vec![
        sending(relay.data, half).await,
        sending(relay.data, &http2[..10]).await,
    ];
    let mut again = sending(relay.data, hello.as_bytes()).await;
    read_until(&mut again, "hello").await;
    again.write_all(half).await.unwrap();
    begun.push(again);

    let mut silent = TcpStream::connect(relay.data).await.unwrap();
    let mut answered = sending(relay.data, hello.as_bytes()).await;
    read_until(&mut answered, "hello").await;
    let upload = hello.replace("GET /hello", "POST /sink");
    let upload = upload.replace("\r\n\r\n", "\r\ncontent-length: 2\r\n\r\nx");
    let mut upload = sending(relay.data, upload.as_bytes()).await;
    let mut idle = sending(relay.data, &http2).await;

    pass(MINUTE - Duration::from_secs(1)).await;
    for (number, stream) in begun.iter_mut().enumerate() {
        let peeked = timeout(Duration::from_millis(50), stream.peek(&mut [0])).await;
        assert!(peeked.is_err(), "{number}: {peeked:?}");
    }
    // The relay checks four times a minute.
    pass(MINUTE / 4).await;
    for (number, stream) in begun.iter_mut().enumerate() {
        assert!(is_closed(stream, SOON).await, "{number}");
    }
    pass(10 * MINUTE).await;
    for stream in [&mut silent, &mut answered] {
        stream.write_all(hello.as_bytes()).await.unwrap();
        read_until(stream, "hello").await;
    }
    upload.write_all(b"y").await.unwrap();
    read_until(&mut upload, "\r\n\r\n2").await;
    assert!(!is_closed(&mut idle, Duration::from_millis(50)).await);
}

#[tokio::test]
async fn slow_heads_end_after_a_minute() {
    let relay = Relay::start().await;
    let mut stream = sending(relay.data, b"GET / HTTP/1.1\r\nx: ").await;
    for _ in 0..6 {
        pass(MINUTE / 5).await;
        let _ = stream.write_all(b"y").await;
    }
    assert!(is_closed(&mut stream, SOON).await);
}

#[tokio::test]
async fn silent_control_connections_make_room() {
    const UNOPENED: usize = 1_024;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let (relay, server) = (Relay::start().await, LocalServer::start().await);
    let mut silent = Vec::new();
    for _ in 0..UNOPENED {
        silent.push(TcpStream::connect(relay.control).await.unwrap());
    }
    let mut one_more = TcpStream::connect(relay.control).await.unwrap();
    assert!(is_closed(&mut one_more, SOON).await, "more than it says");
    assert!(!is_closed(&mut silent[0], Duration::from_millis(50)).await);
    pass(MINUTE / 2).await;
    for stream in &mut silent {
        assert!(is_closed(stream, SOON).await);
    }
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let asked = request("GET", "/hello", &machine.address(), full(""));
    assert_eq!(ask(&mut h1(relay.data).await, asked).await.text(), "hello");
}

#[tokio::test]
async fn presence_port_tells_up_and_name_only() {
    let (relay, server) = (Relay::with_presence().await, LocalServer::start().await);
    let presence = relay.presence.expect("a port");
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let up = format!("/tunnels/{}", machine.address());
    let told: serde_json::Value = serde_json::from_str(&get_text(presence, &up).await).unwrap();
    assert_eq!(told, serde_json::json!({"up": true, "name": "orders-bob"}));
    let away = format!("/tunnels/{}", "0".repeat(32));
    assert_eq!(get_text(presence, &away).await, r#"{"up":false}"#);
    assert_eq!(get_text(presence, "/healthz").await, "ok\n");
    for path in ["/metrics", "/tunnel", "/", "/tunnels/"] {
        assert_eq!(get_text(presence, path).await, "", "{path}");
    }
    let head = format!("POST {up} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    let mut stream = sending(presence, head.as_bytes()).await;
    read_until(&mut stream, "HTTP/1.1 405 Method Not Allowed\r\n").await;
}

#[tokio::test]
async fn slow_questions_make_room_in_seconds() {
    const QUESTIONS: usize = 256;
    let (relay, server) = (Relay::with_presence().await, LocalServer::start().await);
    let presence = relay.presence.expect("a port");
    let machine = Machine::up(relay.control, developer(server.port)).await;
    let path = format!("/tunnels/{}", machine.address());
    let question = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut slow = Vec::new();
    for number in 0..QUESTIONS {
        // Some say nothing, some begin a question.
        let begun = &question.as_bytes()[..number % 40];
        slow.push(sending(presence, begun).await);
    }
    let mut one_more = sending(presence, b"").await;
    assert!(is_closed(&mut one_more, SOON).await, "more than it takes");
    // The tunnels' own port has its own places.
    assert_eq!(get_text(relay.control, "/healthz").await, "ok\n");
    pass(Duration::from_secs(5)).await;
    for stream in &mut slow {
        assert!(is_closed(stream, SOON).await);
    }
    assert!(get_text(presence, &path).await.contains("true"));
}

#[tokio::test]
async fn second_and_endless_questions_are_not_answered() {
    let relay = Relay::with_presence().await;
    let presence = relay.presence.expect("a port");
    let question = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut stream = sending(presence, question.repeat(2).as_bytes()).await;
    let mut answers = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut answers)).await;
    read.expect("closed").ok();
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    let mut stream = sending(presence, b"GET /healthz HTTP/1.1\r\nx: ").await;
    let _ = stream.write_all(&[b'y'; 64 * 1024]).await;
    assert!(is_closed(&mut stream, SOON).await);
}

#[tokio::test]
async fn unfinished_tunnels_make_room() {
    let options = Options {
        tunnels: 1,
        tempo: patient(),
        ..Options::default()
    };
    let (relay, server) = (Relay::with(options).await, LocalServer::start().await);
    let head = format!(
        "GET /tunnel HTTP/1.1\r\nhost: relay\r\nconnection: upgrade\r\nupgrade: intercept-h2\r\nx-intercept-tunnel-version: {VERSION}\r\n\
         x-intercept-tunnel-secret: {}\r\nx-intercept-tunnel-name: by-hand\r\nx-intercept-tunnel-instance: 1\r\n\r\n",
        Secret::random().expose()
    );
    let mut unfinished = sending(relay.control, head.as_bytes()).await;
    read_until(&mut unfinished, "\r\n\r\n").await;
    let mut refused = sending(relay.control, head.as_bytes()).await;
    read_until(&mut refused, "HTTP/1.1 507 Insufficient Storage\r\n").await;
    pass(Duration::from_secs(10)).await;
    assert!(is_closed(&mut unfinished, SOON).await);
    Machine::up(relay.control, developer(server.port)).await;
}

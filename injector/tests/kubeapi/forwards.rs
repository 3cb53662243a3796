//! A port-forward that ends on the API server's side: the tunnel comes back by itself, and no request is lost but one that was under way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::stage::{PREPARED, Stage};

/// How long a tunnel may take to be back.
const BACK: Duration = Duration::from_secs(60);

/// How many requests in a row show that it is.
const ENOUGH: usize = 50;

/// What became of a request, as the gate reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The developer's server answered.
    Served,
    /// It has certainly not seen the request.
    Unavailable,
    /// It may have.
    Lost,
}

/// How often each request was executed.
type Executed = Arc<Mutex<BTreeMap<String, usize>>>;

/// A developer's server that counts; its port.
fn counting_server(stage: &Stage) -> (u16, Executed) {
    let executed = Executed::default();
    let counts = Arc::clone(&executed);
    let port = stage.wait(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counts = Arc::clone(&counts);
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await?;
                    let path = head.split(' ').nth(1)?.to_owned();
                    *counts.lock().expect("whole").entry(path).or_default() += 1;
                    let answer =
                        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                    stream.write_all(answer.as_bytes()).await.ok()
                });
            }
        });
        port
    });
    (port, executed)
}

/// The head of a message; `None` where it does not come.
async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut more = [0; 4096];
        let length = stream
            .read(&mut more)
            .await
            .ok()
            .filter(|length| *length > 0)?;
        text.extend_from_slice(&more[..length]);
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The gate before a relay, and the sidecar that reports the caller's identity.
struct Gate {
    relay: SocketAddr,
    address: String,
    identity: String,
}

impl Gate {
    fn of(stage: &Stage, intercept: &str) -> Self {
        let there = stage.intercept(intercept).expect("there");
        let tunnel = &there["spec"]["tunnel"];
        let target = stage.target("bob");
        let place = stage.plan(&target, intercept, "bob", "Bob").place;
        Self {
            relay: stage
                .server
                .data(tunnel["relay"].as_u64().expect("a number")),
            address: tunnel["address"].as_str().expect("an address").to_owned(),
            identity: place.identity.expect("a mesh has identities"),
        }
    }

    /// Sends a request, which the relay must answer.
    async fn ask(&self, path: &str) -> Outcome {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind((std::net::Ipv4Addr::new(127, 0, 0, 6), 0).into())
            .expect("the sidecar's address");
        let mut stream = socket.connect(self.relay).await.expect("the relay listens");
        let Self {
            address, identity, ..
        } = self;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: orders\r\nx-intercept-address: {address}\r\nx-intercept-peer: {identity}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = read_head(&mut stream).await.expect("an answer");
        let status = head.split(' ').nth(1).expect("a status");
        let has = |name: &str| head.to_lowercase().contains(&format!("\r\n{name}:"));
        match status {
            "200" if has("x-intercept-served-by") => Outcome::Served,
            "503" if has("x-intercept-unavailable") => Outcome::Unavailable,
            "502" if has("x-intercept-lost") => Outcome::Lost,
            _ => panic!("{path}: {head}"),
        }
    }
}

/// Requests, one after the other, while `end` ends the forward: bob's server answers before and afterwards.
fn assert_survives(stage: &Stage, end: impl FnOnce() + Send) {
    let (port, executed) = counting_server(stage);
    let port = port.to_string();
    let line = [
        "intercept",
        "orders",
        "--port",
        &port,
        "--http-header=Coder=Bob",
    ];
    let bob = stage.start("bob", &line);
    bob.is_live();
    let gate = Gate::of(stage, "orders-bob");
    let mut outcomes = Vec::new();
    let ask = |outcomes: &mut Vec<Outcome>| {
        let outcome = stage.wait(gate.ask(&format!("/{}", outcomes.len())));
        outcomes.push(outcome);
        outcome
    };
    for _ in 0..ENOUGH {
        assert_eq!(ask(&mut outcomes), Outcome::Served);
    }
    std::thread::scope(|scope| {
        let ending = scope.spawn(end);
        let started = Instant::now();
        let mut row = 0;
        let mut was_away = false;
        while !(was_away && ending.is_finished() && row >= ENOUGH) {
            let is_served = ask(&mut outcomes) == Outcome::Served;
            row = if is_served { row + 1 } else { 0 };
            was_away |= !is_served;
            assert!(started.elapsed() < BACK, "{}", bob.stderr());
        }
        println!("back after {:?}", started.elapsed());
    });
    assert_counts(&outcomes, &executed.lock().expect("whole"));
    assert!(stage.intercept("orders-bob").is_some());
    bob.signal(Signal::INT);
    let end = bob.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(stage.intercepts(), [""; 0]);
    let plugin = stage.server.get(&stage.namespace, "wasmplugin", PREPARED);
    assert_eq!(plugin["spec"]["pluginConfig"]["intercepts"], "{}");
}

/// No request ran twice, none ran that the gate sends elsewhere as well, and at most the one under way is lost.
fn assert_counts(outcomes: &[Outcome], executed: &BTreeMap<String, usize>) {
    let count = |wanted: Outcome| outcomes.iter().filter(|one| **one == wanted).count();
    let [served, unavailable, lost] =
        [Outcome::Served, Outcome::Unavailable, Outcome::Lost].map(count);
    println!("{served} served, {unavailable} unavailable, {lost} lost");
    assert!(lost <= 1, "{lost}");
    for (number, outcome) in outcomes.iter().enumerate() {
        let count = executed.get(&format!("/{number}")).copied().unwrap_or(0);
        let is_right = match outcome {
            Outcome::Served => count == 1,
            Outcome::Unavailable => count == 0,
            Outcome::Lost => count <= 1,
        };
        assert!(is_right, "/{number}: {outcome:?}, and ran {count} times");
    }
}

#[test]
fn closed_forward_is_opened_again() {
    let stage = Stage::alone("closed-forward");
    assert_survives(&stage, || stage.server.pods.end_forwards());
}

#[test]
fn restarted_api_server_is_reached_again() {
    let stage = Stage::alone("restarted-api");
    assert_survives(&stage, || stage.server.restart_api());
}

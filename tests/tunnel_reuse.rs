//! Connections to the developer's server that are used again, and servers that end theirs in every way.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::origin;
use harness::tunnel::{Machine, Relay, ask, developer, eventually, full, h1, request};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// What a server does with its connections, and how many it had.
#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
}

impl Counts {
    fn get(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.connections), load(&self.requests))
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// How a server goes on after it has read a request.
#[derive(Clone, Copy)]
enum After {
    /// Answers, and waits for the next request.
    Answer,
    /// Answers, and closes without having said so.
    AnswerAndClose,
    /// Answers the first request of a connection, and closes when it has read the second.
    CloseAtSecond,
    /// Answers, and sends after a moment what does not belong to that answer.
    AnswerTwice,
}

/// A server that serves this many connections at once; others wait.
async fn server(after: After, at_once: usize) -> (u16, Arc<Counts>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counts = Arc::<Counts>::default();
    let shared = Arc::clone(&counts);
    tokio::spawn(async move {
        let places = Arc::new(tokio::sync::Semaphore::new(at_once));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let counts = Arc::clone(&shared);
            tokio::spawn(async move {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_add(1, Ordering::SeqCst);
                serve(stream, after, &counts).await;
                counts.open.fetch_sub(1, Ordering::SeqCst);
                drop(place);
            });
        }
    });
    (port, counts)
}

async fn serve(mut stream: TcpStream, after: After, counts: &Counts) {
    stream.set_nodelay(true).unwrap();
    for number in 0.. {
        if !origin::receive(&mut stream).await.whole {
            return;
        }
        counts.requests.fetch_add(1, Ordering::SeqCst);
        if matches!((after, number), (After::CloseAtSecond, 1)) {
            return;
        }
        stream.write_all(HELLO).await.unwrap();
        match after {
            After::AnswerAndClose => return,
            After::AnswerTwice => {
                tokio::task::yield_now().await;
                let _ = stream
                    .write_all(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
            _ => {}
        }
    }
}

/// Sends one request, and checks that the developer's server answered it.
async fn hello(client: &mut harness::tunnel::Client, machine: &Machine, method: &str) {
    let body = full(if method == "POST" { "body" } else { "" });
    let answer = ask(client, request(method, "/", &machine.address(), body)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"hello"[..])
    );
}

async fn rig(after: After, at_once: usize) -> (Relay, Machine, Arc<Counts>) {
    let (relay, (port, counts)) = (Relay::start().await, server(after, at_once).await);
    let machine = Machine::up(relay.control, developer(port)).await;
    (relay, machine, counts)
}

#[tokio::test]
async fn repeatable_requests_share_a_connection() {
    let (relay, machine, counts) = rig(After::Answer, 100).await;
    let mut client = h1(relay.data).await;
    for _ in 0..20 {
        hello(&mut client, &machine, "GET").await;
    }
    let (connections, requests) = counts.get();
    assert_eq!(requests, 20);
    assert!(
        connections <= 3,
        "{connections}: one, unless the machine stood still"
    );
    eventually("idle ones are closed", async || counts.open() == 0).await;
}

#[tokio::test]
async fn others_have_a_connection_of_their_own() {
    let (relay, machine, counts) = rig(After::Answer, 100).await;
    let mut client = h1(relay.data).await;
    for _ in 0..10 {
        hello(&mut client, &machine, "POST").await;
    }
    assert_eq!(counts.get(), (10, 10));
}

#[tokio::test]
async fn servers_that_close_answer_each_request_once() {
    let (relay, machine, counts) = rig(After::AnswerAndClose, 100).await;
    let mut client = h1(relay.data).await;
    for _ in 0..300 {
        hello(&mut client, &machine, "GET").await;
        hello(&mut client, &machine, "POST").await;
    }
    assert_eq!(counts.get(), (600, 600));
}

#[tokio::test]
async fn request_on_a_closed_connection_is_sent_again() {
    let (relay, machine, counts) = rig(After::CloseAtSecond, 100).await;
    let mut client = h1(relay.data).await;
    for _ in 0..20 {
        hello(&mut client, &machine, "GET").await;
    }
    let (connections, requests) = counts.get();
    assert!(connections >= 20, "{connections}");
    assert!(
        requests > 20,
        "{requests}: none was sent on a used connection"
    );
}

#[tokio::test]
async fn bytes_after_an_answer_answer_nothing() {
    let (relay, machine, _) = rig(After::AnswerTwice, 100).await;
    let mut client = h1(relay.data).await;
    for _ in 0..300 {
        hello(&mut client, &machine, "GET").await;
    }
}

#[tokio::test]
async fn server_of_one_connection_serves_everybody() {
    let (relay, machine, counts) = rig(After::Answer, 1).await;
    let (mut busy, mut other) = (h1(relay.data).await, h1(relay.data).await);
    // One client keeps a connection in use all the time; the other one's POST needs another.
    let busy = async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            hello(&mut busy, &machine, "GET").await;
        }
    };
    let other = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        hello(&mut other, &machine, "POST").await;
        began.elapsed()
    };
    let ((), waited) = tokio::join!(busy, other);
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert!(counts.get().0 < counts.get().1, "none was used again");
    let began = Instant::now();
    hello(&mut h1(relay.data).await, &machine, "POST").await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn no_idle_connection_outlives_its_tunnel() {
    let (relay, machine, counts) = rig(After::Answer, 100).await;
    hello(&mut h1(relay.data).await, &machine, "GET").await;
    machine.stop().await.unwrap().unwrap();
    eventually("the connection is closed", async || counts.open() == 0).await;
}

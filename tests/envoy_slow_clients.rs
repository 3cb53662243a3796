//! Clients that stall, leave, or are answered early, through a real Envoy.
//!
//! Each slows down only itself, and all its resources are released soon after it left.
//!
//! The developer's servers are sockets, so that no library reads or closes anything for them.
//! `SLOW_CLIENTS` is the number of concurrent clients (20), `EARLY_ANSWERS` of uploads that are answered early (20), `TUNNELS` of tunnels at the relay (2).
//! `GONE_SECONDS` is the time in which a client must be gone everywhere after its end has reached Envoy's machine (2).

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use harness::app::App;
use harness::client::Ask;
use harness::mesh::{Mesh, Plan};
use harness::plugin::{NOBODY, document, entry};
use harness::ports::Port;
use harness::tunnel::{self, Client, LocalServer, Machine, developer, full, get_text, repeat};
use harness::{load, raw, wait};
use http::{Request, Response};
use hyper::body::Incoming;
use intercept_manifest::facts::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const MIB: u64 = 1 << 20;
/// What a client sends at once: no more than the smallest buffer of Envoy's kernel.
static STEP: [u8; 64 * 1024] = [b'u'; _];
/// Smaller differences count as noise of the machine.
const FLOOR: Duration = Duration::from_millis(30);
/// How much slower others may become.
const SLOWER: u32 = 10;

fn parameter(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// A developer's server on plain sockets:
///
/// | path | answer |
/// |---|---|
/// | `/refuse` | `413` at once; the body is never read |
/// | `/stall` | none, and the body is not read until [`Sockets::read_on`] |
/// | `/socket` | `101`, then nothing is read or written until then |
/// | others | `hello`, once the body is read |
struct Sockets {
    port: u16,
    /// Connections whose end has not been read yet.
    open: Arc<AtomicUsize>,
    reading: watch::Sender<bool>,
}

impl Sockets {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, reading) = (Arc::<AtomicUsize>::default(), watch::Sender::new(false));
        let (count, may_read) = (Arc::clone(&open), reading.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, may_read) = (Arc::clone(&count), may_read.clone());
                tokio::spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = serve(stream, may_read).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            open,
            reading,
        }
    }

    fn read_on(&self) {
        self.reading.send_replace(true);
    }
}

async fn serve(mut stream: TcpStream, mut may_read: watch::Receiver<bool>) -> std::io::Result<()> {
    let head = read_head(&mut stream).await?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    match path.as_str() {
        "/refuse" => {
            let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large";
            stream.write_all(answer).await?;
        }
        "/stall" => {}
        "/socket" => {
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
            stream.write_all(answer).await?;
        }
        _ => {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            stream.read_exact(&mut vec![0; length]).await?;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
            return stream.write_all(answer).await;
        }
    }
    let _ = may_read.wait_for(|may| *may).await;
    while stream.read(&mut [0; 65536]).await? > 0 {}
    Ok(())
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A mesh whose relay has tunnels to one server: of Ann, of Bob, and of others without requests.
///
/// Carol's address has no tunnel.
struct Bed {
    mesh: Mesh,
    machines: Vec<Machine>,
    protocol: Protocol,
    _app: App,
}

impl Bed {
    async fn new(protocol: Protocol, port: u16) -> Self {
        let app = App::start("app").await;
        let mesh = Plan::at(app.addr(), protocol).start().await;
        let control = mesh.files().workload().relay.control;
        let tunnels = (0..parameter("TUNNELS", 2)).map(|_| Machine::up(control, developer(port)));
        let machines = join_all(tunnels).await;
        let named = |name: &str, address: &str| entry(name, mesh.port(), address, "coder", name);
        let document = document([
            named("ann", &machines[0].address()),
            named("bob", &machines[1].address()),
            named("carol", NOBODY),
        ]);
        mesh.write_document(&document).await;
        Self {
            mesh,
            machines,
            protocol,
            _app: app,
        }
    }

    async fn client(&self) -> Client {
        match self.protocol {
            Protocol::Http => tunnel::h1(self.mesh.addr()).await,
            _ => tunnel::h2(self.mesh.addr()).await,
        }
    }

    /// The second-slowest of some small requests: Ann's, Bob's, and unmatched ones.
    async fn times(&self) -> [Duration; 3] {
        let mut clients = [
            ("ann", self.client().await),
            ("bob", self.client().await),
            ("dave", self.client().await),
        ];
        let mut all = [const { Vec::new() }; 3];
        for _ in 0..20 {
            for ((coder, client), times) in clients.iter_mut().zip(&mut all) {
                let asked = Instant::now();
                let sent = client.send(post("/hello", coder, full("abc")));
                let answer = timeout(wait::DEADLINE, sent).await;
                let answer = answer.unwrap_or_else(|_| panic!("{coder} waits for ever"));
                let answer = tunnel::Answer::read(answer.unwrap()).await.unwrap();
                assert_eq!(answer.status, 200, "{coder}");
                times.push(asked.elapsed());
                if answer.header("connection") == "close" {
                    *client = self.client().await;
                }
            }
        }
        all.map(|mut times| {
            times.sort();
            times[times.len() - 2]
        })
    }

    /// Sends as much as Envoy, the relay and everything behind it take while nothing is read.
    ///
    /// Hardly more: the rest fits into the buffer
    /// of Envoy's kernel. Behind more data, a client's FIN would stay in its own kernel, where Envoy cannot see it; how much more depends on how quickly Envoy read.
    async fn send_until_envoy_stalls(&self, clients: &mut [TcpStream]) {
        const SOON: Duration = Duration::from_millis(300);
        let (mut moved, mut steps) = (Instant::now(), 0);
        loop {
            let is_late = moved.elapsed() > SOON;
            if is_late {
                // By then all of them have had their turn, however slow the machine is.
                self.times().await;
            }
            match self.send_a_step(clients).await {
                0 if is_late => break,
                0 => {}
                sent => (moved, steps) = (Instant::now(), steps + sent),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!(
            "{:?}: each of {} sent {} KiB",
            self.protocol,
            clients.len(),
            steps * STEP.len() / 1024 / clients.len()
        );
    }

    /// Sends a step from each client of which Envoy has read everything.
    ///
    /// Returns the number of clients.
    async fn send_a_step(&self, clients: &mut [TcpStream]) -> usize {
        let unread = unread(self.mesh.addr());
        let mut sent = 0;
        for client in clients {
            if unread.get(&client.local_addr().unwrap().port()) == Some(&0) {
                let sending = timeout(wait::DEADLINE, client.write_all(&STEP)).await;
                sending.expect("room for a step").unwrap();
                sent += 1;
            }
        }
        sent
    }

    fn assert_no_slower(&self, now: [Duration; 3], usual: [Duration; 3], what: &str) {
        println!("{:?}, {what}: {now:?}, usually {usual:?}", self.protocol);
        for ((who, now), usual) in ["ann", "bob", "others"].iter().zip(now).zip(usual) {
            assert!(
                now <= SLOWER * usual.max(FLOOR),
                "{:?}, {what}: {who} waits {now:?}, usually {usual:?}",
                self.protocol
            );
        }
    }

    /// The number of Ann's requests that run at the relay.
    async fn under_way(&self) -> u64 {
        let control = self.mesh.files().workload().relay.control;
        let path = format!("/tunnels/{}", self.machines[0].address());
        let text = get_text(control, &path).await;
        let described: serde_json::Value = serde_json::from_str(&text).unwrap();
        described["under_way"].as_u64().expect("a tunnel")
    }

    /// The number of the relay's open descriptors.
    fn descriptors(&mut self) -> usize {
        let id = self.mesh.relay().id();
        std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
    }

    /// Waits until all resources of clients that just left are released.
    async fn assert_gone(&mut self, before: usize, what: &str) {
        let left = Instant::now();
        let limit = Duration::from_secs(parameter("GONE_SECONDS", 2) as u64);
        loop {
            // Envoy keeps a few connections for the next requests.
            let (under_way, open) = (self.under_way().await, self.descriptors());
            if under_way == 0 && open <= before + 8 {
                println!(
                    "{:?}, {what}: gone after {:?}",
                    self.protocol,
                    left.elapsed()
                );
                return;
            }
            assert!(
                left.elapsed() < limit,
                "{:?}, {what}: {under_way} under way, {open} descriptors of {before}",
                self.protocol
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the relay has received all that it accepts.
    async fn settled(&self, direction: &str) {
        let control = self.mesh.files().workload().relay.control;
        let mut before = String::new();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let text = get_text(control, "/metrics").await;
            let bytes = text.lines().find(|line| line.contains(direction));
            // Beats every half second change only the last digits.
            let now = bytes.expect("a counter").trim_end_matches(char::is_numeric);
            let digits = bytes.unwrap()[now.len()..].to_owned();
            let now = digits[..digits.len().saturating_sub(4)].to_owned();
            if now == before {
                return;
            }
            before = now;
        }
    }
}

fn post(path: &str, coder: &str, body: tunnel::Body) -> Request<tunnel::Body> {
    let request = Request::post(path).header("coder", coder);
    request.body(body).unwrap()
}

fn get(path: &str, coder: &str) -> Request<tunnel::Body> {
    let request = Request::get(path).header("coder", coder);
    request.body(full("")).unwrap()
}

const PROTOCOLS: [Protocol; 4] = [
    Protocol::Http,
    Protocol::Http2,
    Protocol::Grpc,
    Protocol::Auto,
];

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_slow_only_themselves() {
    for protocol in PROTOCOLS {
        let server = LocalServer::start().await;
        let mut bed = Bed::new(protocol, server.port).await;
        let usual = bed.times().await;
        let before = bed.descriptors();
        for readers in [1, parameter("SLOW_CLIENTS", 20)] {
            let what = format!("{readers} stalled readers");
            let mut stalled = Vec::new();
            for _ in 0..readers {
                let mut client = bed.client().await;
                let sent = client.send(get(&format!("/big/{}", 64 * MIB), "ann"));
                let answer = timeout(wait::DEADLINE, sent).await.expect("a head");
                assert_eq!(answer.as_ref().unwrap().status(), 200);
                stalled.push((client, answer));
            }
            bed.settled("from_developer").await;
            let now = bed.times().await;
            bed.assert_no_slower(now, usual, &what);
            assert_eq!(server.open.load(Ordering::SeqCst), readers, "{what}");
            drop(stalled);
            bed.assert_gone(before, &what).await;
            wait::until("the server is rid of them", async || {
                server.open.load(Ordering::SeqCst) == 0
            })
            .await;
        }
    }
}

/// Uploads to a path that does not read bodies, each aborted after a while.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_uploads_are_gone() {
    for protocol in PROTOCOLS {
        let server = Sockets::start().await;
        let mut bed = Bed::new(protocol, server.port).await;
        let usual = bed.times().await;
        let before = bed.descriptors();
        let uploads = parameter("SLOW_CLIENTS", 20);
        let what = format!("{uploads} abandoned uploads");
        let abandoned = Upload::begin(&bed, uploads).await;
        bed.settled("to_developer").await;
        abandoned.into_iter().for_each(Upload::leave);
        let left = Instant::now();
        let now = bed.times().await;
        bed.assert_no_slower(now, usual, &what);
        println!("asked {:?} after they left", left.elapsed());
        bed.assert_gone(before, &what).await;
        // The server notices that each of them has ended.
        server.read_on();
        wait::until("every connection to the server has ended", async || {
            server.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

/// An upload of which the developer's server reads only the head.
enum Upload {
    H1(TcpStream),
    H2(JoinHandle<hyper::Result<Response<Incoming>>>),
}

impl Upload {
    async fn begin(bed: &Bed, count: usize) -> Vec<Self> {
        const SIZE: u64 = 32 * MIB;
        if bed.protocol != Protocol::Http {
            let mut uploads = Vec::new();
            for mut client in join_all((0..count).map(|_| bed.client())).await {
                let request = post("/stall", "ann", repeat(b'u', SIZE));
                uploads.push(tokio::spawn(async move { client.send(request).await }));
            }
            // The cluster answers requests that come while the tunnel has missed a beat, or while the others pin the maximum of memory.
            wait::until("each is under way or answered", async || {
                let answered = uploads.iter().filter(|upload| upload.is_finished());
                answered.count() + bed.under_way().await as usize == count
            })
            .await;
            uploads.retain(|upload| !upload.is_finished());
            assert!(2 * uploads.len() > count, "{} stall", uploads.len());
            return uploads.into_iter().map(Self::H2).collect();
        }
        let head = format!(
            "POST /stall HTTP/1.1\r\nhost: a\r\ncoder: ann\r\ncontent-length: {SIZE}\r\n\r\n"
        );
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(bed.mesh.addr()).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        bed.send_until_envoy_stalls(&mut streams).await;
        streams.into_iter().map(Self::H1).collect()
    }

    /// Closes the client's connection; the upload must not have been answered.
    fn leave(self) {
        match self {
            Self::H1(stream) => {
                let read = stream.try_read(&mut [0]);
                assert!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
            }
            Self::H2(sending) => {
                assert!(!sending.is_finished());
                sending.abort();
            }
        }
    }
}

/// Unread bytes of a server in this machine's kernel, by the client's port.
fn unread(server: SocketAddr) -> HashMap<u16, u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let connection = |line: &str| {
        let mut fields = line.split([' ', ':']).filter(|field| !field.is_empty());
        let [local, remote, unread] = [2, 1, 2].map(|skip| number(fields.nth(skip).unwrap()));
        (local == u64::from(server.port())).then_some((remote as u16, unread))
    };
    table.lines().skip(1).filter_map(connection).collect()
}

/// Stalled uploads whose clients stay.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_uploads_slow_only_themselves() {
    for protocol in PROTOCOLS {
        let server = Sockets::start().await;
        let mut bed = Bed::new(protocol, server.port).await;
        let usual = bed.times().await;
        let before = bed.descriptors();
        let uploads = parameter("SLOW_CLIENTS", 20);
        let what = format!("{uploads} stalled uploads");
        let stalled = Upload::begin(&bed, uploads).await;
        wait::until("all are under way", async || {
            bed.under_way().await as usize == stalled.len()
        })
        .await;
        bed.settled("to_developer").await;
        let now = bed.times().await;
        bed.assert_no_slower(now, usual, &what);
        stalled.into_iter().for_each(Upload::leave);
        bed.assert_gone(before, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_connection_is_gone() {
    let server = LocalServer::start().await;
    let mut bed = Bed::new(Protocol::Http, server.port).await;
    bed.times().await;
    let before = bed.descriptors();
    let mut held = Vec::new();
    for _ in 0..parameter("SLOW_CLIENTS", 20) {
        let mut stream = TcpStream::connect(bed.mesh.addr()).await.unwrap();
        let head = format!(
            "GET /big/{} HTTP/1.1\r\nhost: a\r\ncoder: ann\r\n\r\n",
            64 * MIB
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    for stream in &mut held {
        stream.shutdown().await.unwrap();
    }
    // Envoy treats the end of one direction as the end of both.
    bed.assert_gone(before, "half-closed").await;
}

/// WebSockets to a server that neither reads nor closes, left idle or with much data in flight.
#[tokio::test(flavor = "multi_thread")]
async fn websockets_left_behind_are_gone() {
    for protocol in [Protocol::Http, Protocol::Http2, Protocol::Auto] {
        for is_idle in [true, false] {
            let server = Sockets::start().await;
            let mut bed = Bed::new(protocol, server.port).await;
            let usual = bed.times().await;
            let before = bed.descriptors();
            let sockets = parameter("SLOW_CLIENTS", 20);
            let what = format!("{sockets} WebSockets, idle: {is_idle}");
            let address = bed.mesh.addr();
            let mut open = join_all((0..sockets).map(|_| open_socket(address))).await;
            if !is_idle {
                bed.send_until_envoy_stalls(&mut open).await;
            }
            bed.settled("to_developer").await;
            drop(open);
            let now = bed.times().await;
            bed.assert_no_slower(now, usual, &what);
            bed.assert_gone(before, &what).await;
            server.read_on();
            wait::until("every connection to the server has ended", async || {
                server.open.load(Ordering::SeqCst) == 0
            })
            .await;
        }
    }
}

async fn open_socket(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET /socket HTTP/1.1\r\nhost: a\r\ncoder: ann\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let answer = timeout(wait::DEADLINE, read_head(&mut stream)).await;
    let answer = answer.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream
}

/// A `413` to an upload whose body the server does not read.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_arrives_whatever_the_upload() {
    let server = Sockets::start().await;
    let bed = Bed::new(Protocol::Http, server.port).await;
    let body = Bytes::from(vec![b'u'; 32 * MIB as usize]);
    for size in [2_500_000, 6_000_000, body.len()] {
        let mut answers = Vec::new();
        for _ in 0..parameter("EARLY_ANSWERS", 20) {
            let mut stream = TcpStream::connect(bed.mesh.addr()).await.unwrap();
            let head = format!(
                "POST /refuse HTTP/1.1\r\nhost: a\r\ncoder: ann\r\ncontent-length: {size}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.into_split();
            let body = body.slice(..size);
            let sending = tokio::spawn(async move { to.write_all(&body).await.map(|()| to) });
            let mut answer = Vec::new();
            let reading = timeout(wait::DEADLINE, async {
                while !raw::contains(&answer, "too large")
                    && from.read_buf(&mut answer).await.is_ok_and(|read| read > 0)
                {}
            });
            reading.await.expect("an answer in time");
            sending.abort();
            let text = String::from_utf8_lossy(&answer).into_owned();
            answers.push((
                raw::status(&answer),
                raw::contains(&answer, "x-intercept-served-by: "),
                text,
            ));
        }
        let wrong = answers
            .iter()
            .filter(|(status, served, _)| (*status, *served) != (Some(413), true));
        let (count, sample) = (wrong.clone().count(), wrong.clone().next());
        println!("{size}: {count} of {} wrong", answers.len());
        assert_eq!(
            count,
            0,
            "of {} with {size} bytes: {sample:?}",
            answers.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_of_900_kb_falls_back() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        let silent = Port::reserve();
        let bed = Bed::new(protocol, silent.number()).await;
        // No server listens behind Ann's tunnel, and Carol has no tunnel.
        for coder in ["ann", "carol"] {
            let ask = Ask::post("/", 900_000).header("coder", coder);
            let count = 5 * parameter("EARLY_ANSWERS", 20);
            let client = bed.mesh.h1();
            let outcome = load::run(&client, 8, count, move |number| ask.clone().id(number)).await;
            outcome.assert_no_errors();
            assert_eq!(outcome.answered_by("app"), count, "{:?}", outcome.by());
        }
    }
}

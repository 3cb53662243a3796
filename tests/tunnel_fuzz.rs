//! Random and mutated bytes from every possible sender.
//!
//! Sent to the relay's control port and data port, and to a developer machine from a fake relay.
//! Nothing panics, other requests are answered all the while, and all resources are released.
//!
//! `make fuzz` runs it at length: `FUZZ_STREAMS` is the number of inputs for each of the three. Deterministic except for secrets and timing: `FUZZ_SEED` sets another seed.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harness::tunnel::{
    self, Answer, LocalServer, Machine, Relay, SOON, Wire, developer, eventually, full, h1, h2,
    request,
};
use http_body::Frame;
use intercept_tunnel::developer::{Developer, Event, Stream};
use intercept_tunnel::relay::Options;
use intercept_tunnel::{Secret, Tempo, VERSION};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

mod fuzz {
    pub mod mutate;
    pub mod seeds;
}
use fuzz::mutate;
use fuzz::seeds::{self, Stages};

/// How many inputs run at once.
const AT_ONCE: usize = 16;
/// Longer than any input may take.
const HANG: Duration = Duration::from_secs(60);
/// How much memory may grow after a quarter of the inputs, in KiB: what allocators keep.
const GROWTH: u64 = 32 * 1024;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Timeouts that cause no false alarms on a busy machine.
fn patient() -> Tempo {
    Tempo {
        suspect: HANG,
        silence: HANG,
        ..Tempo::default()
    }
}

/// Resources in use by this process.
#[derive(Debug)]
struct Use {
    descriptors: usize,
    tasks: usize,
    memory: u64,
}

impl Use {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|line| line.split_whitespace().next());
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            memory: memory.unwrap().parse().expect("KiB"),
        }
    }
}

/// Bob, who is not involved.
///
/// One request of his is held all the while, others are sent one after the other.
struct Bystander {
    relay: Relay,
    server: LocalServer,
    machine: Machine,
    wire: Wire,
    held: mpsc::Sender<Frame<Bytes>>,
    holding: JoinHandle<Answer>,
    asked: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    asking: JoinHandle<()>,
}

impl Bystander {
    async fn start() -> Self {
        let options = Options {
            tempo: patient(),
            ..Options::default()
        };
        let (relay, server) = (Relay::with(options).await, LocalServer::start().await);
        let wire = Wire::to(relay.control).await;
        let offered = Developer {
            tempo: patient(),
            ..developer(server.port)
        };
        let machine = Machine::up(wire.address, offered).await;
        let (held, body) = tunnel::channel();
        let sent = request("POST", "/echo", &machine.address(), body);
        let mut client = h2(relay.data).await;
        let holding = tokio::spawn(async move {
            Answer::read(client.send(sent).await.unwrap())
                .await
                .unwrap()
        });
        let first = Frame::data(Bytes::from_static(b"one "));
        held.send(first).await.unwrap();
        let asked = Arc::<AtomicU64>::default();
        let stop = watch::Sender::new(false);
        let asking = tokio::spawn(ask_on(
            relay.data,
            machine.address(),
            Arc::clone(&asked),
            stop.subscribe(),
        ));
        Self {
            relay,
            server,
            machine,
            wire,
            held,
            holding,
            asked,
            stop,
            asking,
        }
    }

    /// Checks that all of Bob's requests were answered, through his first tunnel.
    async fn end(self) {
        self.stop.send_replace(true);
        self.asking.await.expect("every request was answered");
        assert!(self.asked.load(Ordering::SeqCst) > 0);
        let last = Frame::data(Bytes::from_static(b"two"));
        self.held.send(last).await.expect("still held");
        drop(self.held);
        let answer = timeout(SOON, self.holding).await.unwrap().unwrap();
        assert_eq!(answer.text(), "one two");
        assert_eq!(self.wire.connections.load(Ordering::SeqCst), 1);
    }
}

async fn ask_on(
    data: std::net::SocketAddr,
    address: String,
    asked: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) {
    let mut kept = h2(data).await;
    while !*stop.borrow_and_update() {
        for client in [&mut kept, &mut h1(data).await] {
            let answer = client.send(request("POST", "/echo", &address, full("abc")));
            let answer = timeout(HANG, answer).await.expect("an answer in time");
            let answer = Answer::read(answer.unwrap()).await.unwrap();
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (200, "abc"),
                "{answer:?}"
            );
        }
        asked.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
    }
}

/// The target of an input.
#[derive(Clone, Copy, Debug)]
enum Target {
    ControlPort,
    DataPort,
    Developer,
}

/// The setup for all inputs.
struct Bed {
    data: std::net::SocketAddr,
    control: std::net::SocketAddr,
    server: u16,
    /// The seeds of inputs, by the secret of the tunnels that they open.
    seeds: Vec<(Secret, Vec<Stages>)>,
    /// Tunnels that were up, because input must get far enough to prove something.
    reached: AtomicU64,
}

/// The seeds for a target; `address` has a tunnel.
fn seeds(target: Target, address: &str) -> Vec<(Secret, Vec<Stages>)> {
    let secrets = (0..4 * AT_ONCE).map(|_| Secret::random());
    let with_seeds = secrets.map(|secret| {
        let own = secret.address().to_string();
        let seeds = match target {
            Target::ControlPort => seeds::control_port(&secret.expose(), &own, VERSION),
            Target::DataPort => seeds::data_port(address),
            Target::Developer => seeds::developer(),
        };
        (secret, seeds)
    });
    with_seeds.collect()
}

/// Reads until nothing more arrives for a while.
async fn listen(stream: &mut TcpStream) {
    let mut heard = Vec::new();
    for patience in [50, 3, 3, 3, 3, 3, 3, 3] {
        match timeout(Duration::from_millis(patience), stream.read_buf(&mut heard)).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
}

/// Sends an input, and ends the connection in one of several ways.
async fn say(stream: &mut TcpStream, input: &[Vec<u8>], way: u8, before_last: impl Future) {
    let mut before_last = Some(before_last);
    for (number, stage) in input.iter().enumerate() {
        if number > 0 {
            listen(stream).await;
        }
        if number > 0
            && number + 1 == input.len()
            && let Some(then) = before_last.take()
        {
            then.await;
            listen(stream).await;
        }
        // The other side may have closed already.
        let pieces = stage
            .chunks(if way.is_multiple_of(4) { 7 } else { usize::MAX })
            .take(200);
        for piece in pieces {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
    }
    match way {
        // At once, with a reset.
        0..3 => stream.set_zero_linger().unwrap(),
        // At once.
        3..5 => {}
        5..8 => listen(stream).await,
        // Closes its sending side, and waits for the end.
        _ => {
            listen(stream).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

impl Bed {
    fn reached(&self, is_far: bool) {
        self.reached.fetch_add(u64::from(is_far), Ordering::Relaxed);
    }

    async fn play(&self, target: Target, round: u64) {
        let mut random = StdRng::seed_from_u64(round);
        let (secret, seeds) = &self.seeds[random.random_range(0..self.seeds.len())];
        let input = mutate::input(seeds, &mut random);
        let way = random.random_range(0..12);
        match target {
            Target::ControlPort => self.to_control(&input, way, secret).await,
            Target::DataPort => self.to_data(&input, way).await,
            Target::Developer => self.to_developer(&input, way, secret.clone()).await,
        }
    }

    async fn to_data(&self, input: &[Vec<u8>], way: u8) {
        let socket = TcpSocket::new_v4().unwrap();
        if way.is_multiple_of(2) {
            // Like a sidecar, which is trusted more.
            socket
                .bind((Ipv4Addr::new(127, 0, 0, 6), 0).into())
                .unwrap();
        }
        let mut stream = socket.connect(self.data).await.unwrap();
        say(&mut stream, input, way, async {}).await;
    }

    /// The machine that opened the tunnel gets a request, which ends with the tunnel at the latest.
    async fn to_control(&self, input: &[Vec<u8>], way: u8, secret: &Secret) {
        let mut stream = TcpStream::connect(self.control).await.unwrap();
        let mut asking = JoinSet::new();
        let asked = async {
            let (data, own) = (self.data, secret.address().to_string());
            asking.spawn(async move {
                let sent = request("POST", "/hello", &own, full("abc"));
                let Ok(answer) = h1(data).await.send(sent).await else {
                    return false;
                };
                let is_up = answer
                    .headers()
                    .get("x-intercept-unavailable")
                    .is_none_or(|why| why != "no-tunnel");
                let _ = Answer::read(answer).await;
                is_up
            });
        };
        say(&mut stream, input, way, asked).await;
        drop(stream);
        while let Some(is_up) = asking.join_next().await {
            self.reached(is_up.unwrap());
        }
    }

    /// The machine reports that its tunnel is down, or ends, or reconnects.
    async fn to_developer(&self, input: &[Vec<u8>], way: u8, secret: Secret) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = listener.local_addr().unwrap();
        let again = Arc::new(AtomicUsize::new(0));
        let connections = Arc::clone(&again);
        let connect = move || {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            async move {
                if number > 0 {
                    std::future::pending::<()>().await;
                }
                let stream = TcpStream::connect(relay).await;
                stream.map(|stream| Box::new(stream) as Box<dyn Stream>)
            }
        };
        let offered = Developer {
            secret,
            ..developer(self.server)
        };
        let mut machine = Machine::over(connect, offered);
        let (mut stream, _) = listener.accept().await.unwrap();
        listen(&mut stream).await;
        say(&mut stream, input, way, async {}).await;
        drop(stream);
        let (mut is_up, mut is_over) = (false, false);
        while !is_over {
            match timeout(Duration::from_millis(20), machine.events.recv()).await {
                Ok(Some(Event::Up { .. })) => is_up = true,
                Ok(Some(Event::Away { .. }) | None) => is_over = true,
                _ => is_over = again.load(Ordering::SeqCst) > 1 || machine.running.is_finished(),
            }
        }
        machine.running.abort();
        self.reached(is_up);
    }
}

/// Runs the inputs with these numbers, some at once.
async fn play(bed: &Arc<Bed>, target: Target, rounds: std::ops::Range<u64>, panics: &AtomicUsize) {
    let mut playing = JoinSet::new();
    for round in rounds {
        if playing.len() >= AT_ONCE {
            playing.join_next().await.unwrap().unwrap();
        }
        let bed = Arc::clone(bed);
        playing.spawn(async move {
            let played = timeout(HANG, bed.play(target, round)).await;
            assert!(played.is_ok(), "{target:?}, round {round}: it never ends");
        });
        let panicked = panics.load(Ordering::SeqCst);
        assert_eq!(panicked, 0, "{target:?}, at round {round}");
    }
    while let Some(played) = playing.join_next().await {
        played.unwrap();
    }
}

async fn fuzz(target: Target, panics: &AtomicUsize) {
    let (rounds, seed) = (setting("FUZZ_STREAMS", 600), setting("FUZZ_SEED", 0));
    let bystander = Bystander::start().await;
    let bed = Arc::new(Bed {
        data: bystander.relay.data,
        control: bystander.relay.control,
        server: bystander.server.port,
        seeds: seeds(target, &bystander.machine.address()),
        reached: AtomicU64::new(0),
    });
    let fresh = Use::now();
    play(&bed, target, seed..seed + rounds / 4, panics).await;
    let before = Use::now();
    play(&bed, target, seed + rounds / 4..seed + rounds, panics).await;
    eventually("descriptors and tasks are given back", async || {
        let now = Use::now();
        // Bob may have a request running.
        now.descriptors <= fresh.descriptors + 4 && now.tasks <= fresh.tasks + 6
    })
    .await;
    let after = Use::now();
    let asked = bystander.asked.load(Ordering::SeqCst);
    let mut reached = bed.reached.load(Ordering::SeqCst);
    if let Target::DataPort = target {
        // Bob uses another path.
        let mut seen = bystander.server.seen.lock().unwrap().clone();
        seen.remove("/echo");
        reached = seen.values().sum::<usize>() as u64;
    }
    println!(
        "{target:?}: {rounds} inputs, {reached} of them got far; {asked} times everybody else was answered; at first {fresh:?}, after a quarter {before:?}, at the end {after:?}"
    );
    assert!(reached > rounds / 50, "{target:?}: {reached} of {rounds}");
    assert!(
        after.memory < before.memory + GROWTH,
        "{target:?}: {before:?}, {after:?}"
    );
    assert_eq!(bystander.relay.metric("injector_relay_tunnels").await, 1.0);
    bystander.end().await;
    assert_eq!(panics.load(Ordering::SeqCst), 0, "{target:?}");
}

/// One test after the other, because each checks the resources of the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_harm_nobody() {
    let panics = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&panics);
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::SeqCst);
        print(panic);
    }));
    for target in [Target::DataPort, Target::Developer, Target::ControlPort] {
        fuzz(target, &panics).await;
    }
}

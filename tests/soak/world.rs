//! Shared state of a soak: lanes with their developers, the tally, and the stop signal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::app::App;
use harness::client::Client;
use harness::endpoint::Endpoint;
use harness::grpc::Grpc;
use harness::intercept::Developer;
use tokio::sync::watch;

use crate::contract::{Breaks, Kind, Timeline, Verdict};
use crate::ledger::Ledger;

/// One workload with its Envoy and its relay.
#[derive(Debug)]
pub struct Lane {
    pub name: &'static str,
    /// HTTP/1.1, and HTTP/2 if the port supports both.
    pub web: Vec<Client>,
    /// The destination of WebSockets.
    pub endpoint: Endpoint,
    pub calls: Grpc,
    pub people: Vec<Arc<Person>>,
}

/// A developer with an own server of the same name.
#[derive(Debug)]
pub struct Person {
    /// The name of the developer and the intercept, and the header's value.
    pub name: &'static str,
    pub developer: Developer,
    pub server: App,
    pub timeline: Timeline,
    /// The restarts of the relay that may have their tunnel.
    pub breaks: Arc<Breaks>,
    /// `:PORT` if the service has several.
    pub port: &'static str,
    pub kinds: &'static [Kind],
}

impl Person {
    /// Do they intercept such requests?
    pub fn takes(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// Requests of one kind in one lane.
#[derive(Debug, Default, Clone, Copy)]
pub struct Row {
    pub cluster: u64,
    pub developer: u64,
    pub named: u64,
    pub deviations: u64,
}

/// A deviation from the contract.
#[derive(Debug, Default)]
pub struct Deviation {
    pub count: u64,
    /// The first few, with their time.
    pub examples: Vec<String>,
}

/// Latencies of trivial requests in milliseconds, with their time.
pub type Latencies = Vec<(Duration, f32)>;

/// The counts of a soak.
#[derive(Debug, Default)]
pub struct Tally {
    pub rows: BTreeMap<(&'static str, &'static str, Kind), Row>,
    pub named: BTreeMap<(Kind, &'static str), u64>,
    pub deviations: BTreeMap<String, Deviation>,
    pub latencies: BTreeMap<&'static str, Latencies>,
    /// How often each way of leaving was used.
    pub turns: BTreeMap<&'static str, u64>,
    /// Commands that refused to start while a part of the cluster was down, and were repeated.
    pub typed_again: u64,
    /// Results of the long-running requests.
    pub long: Vec<String>,
    pub lost_tunnels: u64,
    /// Requests that the cluster answered because a tunnel had missed a beat.
    pub suspects: u64,
    pub expected_losses: u64,
}

/// All shared state.
#[derive(Debug)]
pub struct World {
    pub began: Instant,
    pub ledger: Ledger,
    pub tally: Mutex<Tally>,
    stop: watch::Sender<bool>,
}

impl World {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            ledger: Ledger::default(),
            tally: Mutex::default(),
            stop: watch::channel(false).0,
        }
    }

    /// Becomes true when nothing new is to start.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits that long, or until the soak stops.
    pub async fn pause(&self, time: Duration) {
        let mut stopping = self.stopping();
        let _ = tokio::time::timeout(time, stopping.wait_for(|stop| *stop)).await;
    }

    /// Records a deviation.
    pub fn deviates(&self, what: &str, example: &str) {
        let at = self.began.elapsed().as_secs();
        let mut example = format!("+{}:{:02} {example}", at / 60, at % 60);
        if let Some((cut, _)) = example.char_indices().nth(600) {
            example.truncate(cut);
        }
        eprintln!("deviation: {what}: {example}");
        let mut tally = self.tally.lock().expect("no panic");
        let deviation = tally.deviations.entry(what.to_owned()).or_default();
        deviation.count += 1;
        if deviation.examples.len() < 5 {
            deviation.examples.push(example);
        }
    }

    /// Counts a turn of a developer.
    pub fn count_turn(&self, way: &'static str) {
        let mut tally = self.tally.lock().expect("no panic");
        *tally.turns.entry(way).or_default() += 1;
    }

    /// Counts a request.
    pub fn count(&self, lane: &'static str, is_matched: bool, kind: Kind, verdict: &Verdict) {
        let matched = if is_matched { "matched" } else { "unmatched" };
        let mut tally = self.tally.lock().expect("no panic");
        let row = tally.rows.entry((lane, matched, kind)).or_default();
        match verdict {
            Verdict::Cluster | Verdict::Suspect => row.cluster += 1,
            Verdict::Developer => row.developer += 1,
            Verdict::Named(_) => row.named += 1,
            Verdict::Deviation(_) => row.deviations += 1,
        }
        tally.suspects += u64::from(*verdict == Verdict::Suspect);
        if let Verdict::Named(name) = verdict {
            *tally.named.entry((kind, name)).or_default() += 1;
        }
    }
}

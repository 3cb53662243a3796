//! The options of a relay, and the state that its connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::metrics::Metrics;
use super::registry::Registry;
use crate::memory::Memory;
use crate::{Tempo, settings};

/// The options of a relay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that slow peers may pin over all tunnels.
    ///
    /// Beyond that, and for one tunnel beyond what is left for all others, new requests are answered in the cluster.
    pub memory: u64,
    /// The maximum number of tunnels.
    pub tunnels: usize,
    /// How long running requests may take after the shutdown began.
    pub grace: Duration,
    /// Interval of the beats, and timeouts for silence.
    pub tempo: Tempo,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: 1024 * 1024 * 1024,
            tunnels: settings::TUNNELS,
            grace: Duration::from_secs(10),
            tempo: Tempo::default(),
        }
    }
}

/// State that all connections of a relay share.
pub struct Shared {
    pub tempo: Tempo,
    pub registry: Registry,
    pub memory: Memory,
    pub places: Arc<Semaphore>,
    pub metrics: Metrics,
    /// Limits control connections that have neither become a tunnel nor ended.
    pub unopened: Semaphore,
    /// Connections to the presence port.
    pub questions: Semaphore,
    pub leaving: AtomicBool,
    /// serve → tunnels: the relay has ended.
    pub ended: watch::Sender<bool>,
}

impl Shared {
    pub fn new(options: &Options) -> Self {
        let metrics = Metrics::new();
        Self {
            tempo: options.tempo,
            registry: Registry::new(metrics.clone()),
            memory: Memory::new(options.memory),
            places: Arc::new(Semaphore::new(options.tunnels)),
            metrics,
            unopened: Semaphore::new(settings::UNOPENED),
            questions: Semaphore::new(settings::QUESTIONS),
            leaving: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    /// Waits until the relay cuts off running requests.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}

//! The relay's metrics, as Prometheus text. Reads only the marks of a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::HeaderMap;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::liveness::Meter;
use crate::marks::{self, Unavailable};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// The relay's counters; clones share them.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    /// Tunnels that accept requests.
    pub(super) tunnels: Gauge,
    requests: Family<Outcome, Counter>,
    to_developers: Counter,
    from_developers: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let (tunnels, requests, bytes) = (
            Gauge::default(),
            Family::default(),
            Family::<Direction, Counter>::default(),
        );
        let mut registry = Registry::with_prefix("injector_relay");
        registry.register("tunnels", "Tunnels that take requests now", tunnels.clone());
        registry.register(
            "requests",
            "Requests by what became of them",
            Family::clone(&requests),
        );
        registry.register(
            "tunnel_bytes",
            "Bytes through the tunnels, framing included",
            bytes.clone(),
        );
        let counter = |direction| bytes.get_or_create(&Direction { direction }).clone();
        let (to_developers, from_developers) = (counter("to_developer"), counter("from_developer"));
        Self {
            registry: Arc::new(registry),
            tunnels,
            requests,
            to_developers,
            from_developers,
        }
    }

    /// Counts a request; `reason` is empty if the outcome needs none.
    fn count(&self, outcome: &'static str, reason: &'static str) {
        self.requests
            .get_or_create(&Outcome { outcome, reason })
            .inc();
    }

    /// Counts a request that was not forwarded.
    pub(super) fn count_unavailable(&self, reason: Unavailable) {
        self.count("unavailable", reason.as_str());
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// Counts the bytes of one tunnel, and holds its share of the memory until the connection is gone.
pub(super) struct TunnelMeter<G> {
    pub(super) metrics: Metrics,
    /// meter → tunnel: nothing has arrived for a while.
    pub(super) is_suspect: Arc<AtomicBool>,
    pub(super) _held: G,
}

impl<G: Send + Unpin + 'static> Meter for TunnelMeter<G> {
    fn read(&self, bytes: usize) {
        self.metrics.from_developers.inc_by(bytes as u64);
    }

    fn written(&self, bytes: usize) {
        self.metrics.to_developers.inc_by(bytes as u64);
    }

    fn suspect(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Ordering::Relaxed);
    }
}

/// Counts a request once, by its outcome.
///
/// Dropped before its response, it counts as cancelled by the client.
pub(super) struct Counted<'a> {
    metrics: &'a Metrics,
    ended: bool,
}

impl<'a> Counted<'a> {
    pub(super) fn start(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            ended: false,
        }
    }

    /// Counts the request by its response.
    pub(super) fn end(mut self, answer: &HeaderMap) {
        self.ended = true;
        match Unavailable::on(answer) {
            Some(reason) => self.metrics.count_unavailable(reason),
            None if answer.contains_key(marks::LOST) => self.metrics.count("lost", ""),
            None => self.metrics.count("answered", ""),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.count("cancelled", "");
        }
    }
}

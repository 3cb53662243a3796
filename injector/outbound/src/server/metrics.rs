//! Counters for Prometheus.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::audit::DialRecord;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// All counters, and their text.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    dials: Family<Outcome, Counter>,
    bytes: Family<Direction, Counter>,
    dns: Family<Outcome, Counter>,
    rejections: Counter,
    developers: Gauge<i64, AtomicI64>,
    connections: Gauge<i64, AtomicI64>,
}

/// Counts one while it lives.
pub(super) struct Counted(Gauge<i64, AtomicI64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("injector_outbound"),
            dials: Family::default(),
            bytes: Family::default(),
            dns: Family::default(),
            rejections: Counter::default(),
            developers: Gauge::default(),
            connections: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("dials", "Dials by outcome", self.dials.clone());
        registry.register("bytes", "Bytes by direction", self.bytes.clone());
        registry.register(
            "dns_questions",
            "DNS questions by outcome",
            self.dns.clone(),
        );
        let help = "Developer machines that were not let in";
        registry.register("rejections", help, self.rejections.clone());
        let help = "Developer machines that are connected";
        registry.register("developers", help, self.developers.clone());
        let help = "Connections that are open";
        registry.register("connections", help, self.connections.clone());
    }

    /// The text format of OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(super) fn count_rejection(&self) {
        self.rejections.inc();
    }

    pub(super) fn count_dns(&self, outcome: &'static str) {
        self.dns.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn count_dial(&self, record: &DialRecord) {
        let outcome = record.outcome;
        self.dials.get_or_create(&Outcome { outcome }).inc();
        for (direction, bytes) in [("sent", record.sent), ("received", record.received)] {
            self.bytes
                .get_or_create(&Direction { direction })
                .inc_by(bytes);
        }
    }

    pub(super) fn developer(&self) -> Counted {
        counted(&self.developers)
    }

    pub(super) fn connection(&self) -> Counted {
        counted(&self.connections)
    }
}

fn counted(gauge: &Gauge<i64, AtomicI64>) -> Counted {
    gauge.inc();
    Counted(gauge.clone())
}

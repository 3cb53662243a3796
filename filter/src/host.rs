//! All calls of the filter to Envoy, in forms that cannot trap.

use std::cell::OnceCell;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use intercept_core::{ACTIVE_METRIC, Bypass, HASH_METRIC, Request};
use proxy_wasm::hostcalls;
use proxy_wasm::types::{LogLevel, MapType, MetricType, Status};

/// Names the upstream cluster for the gate's route, which removes the header.
const CLUSTER_HEADER: &str = "x-intercept-cluster";
/// Names the tunnel at the relay; the developer's end removes it.
const ADDRESS_HEADER: &str = "x-intercept-address";
/// The gate's routes match on this filter state, as `wasm.intercept`.
const FILTER_STATE: &str = "intercept";
/// Set on a matched request with a safe method, as `wasm.intercept_safe`.
///
/// The gate may repeat it more freely.
///
/// The gate could check the method itself, but a route checks headers before filter state, so every unmatched request would pay for it (1.9k instructions,
/// a tenth of the filter).
const SAFE_STATE: &str = "intercept_safe";

/// The current request, as Envoy presents it.
#[derive(Default)]
pub struct Downstream {
    port: OnceCell<Option<u16>>,
}

impl Request for Downstream {
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        // Envoy returns only the first line of the header, but cheaply: a miss, the common case, ends here.
        let first = hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name)
            .ok()
            .flatten()?;
        if name.starts_with(':') {
            return Some(first);
        }
        // The attribute has all lines, joined by commas.
        let joined = hostcalls::get_property(vec!["request", "headers", name]);
        joined.ok().flatten().or(Some(first))
    }

    fn is_port(&self, port: u16) -> bool {
        *self.port.get_or_init(destination_port) == Some(port)
    }

    fn now(&self) -> u64 {
        now()
    }
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    let now = hostcalls::get_current_time().ok();
    now.and_then(|now| now.duration_since(UNIX_EPOCH).ok())
        .map_or(u64::MAX, |now| now.as_secs())
}

/// Envoy's attribute `destination.port`, a 64-bit integer in wasm byte order.
///
/// The port that the client dialled, before Istio's redirection to 15006.
fn destination_port() -> Option<u16> {
    let bytes = hostcalls::get_property(vec!["destination", "port"])
        .ok()
        .flatten()?;
    let port = i64::from_le_bytes(bytes.try_into().ok()?);
    u16::try_from(port).ok()
}

/// Hands the request to the gate's routes.
///
/// Sets the filter state last, because only a request with both headers may match those routes, and only then makes Envoy choose the route again.
pub fn reroute(name: &str, cluster: &str, address: &str) {
    let done = set_header(CLUSTER_HEADER, cluster)
        .and_then(|()| set_header(ADDRESS_HEADER, address))
        .and_then(|()| {
            if is_safe() {
                set_state(SAFE_STATE, "true")
            } else {
                Ok(())
            }
        })
        .and_then(|()| set_state(FILTER_STATE, name));
    if done.is_ok() {
        let _ = hostcalls::call_foreign_function("clear_route_cache", None);
    }
}

/// Writes a line to Envoy's log.
pub fn log(level: LogLevel, line: &str) {
    let _ = hostcalls::log(level, line);
}

fn set_header(name: &str, value: &str) -> Result<(), Status> {
    hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes()))
}

fn set_state(name: &str, value: &str) -> Result<(), Status> {
    hostcalls::set_property(vec![name], Some(value.as_bytes()))
}

/// Is the method safe (RFC 9110 section 9.2.1)? TRACE is missing because Envoy rejects it.
fn is_safe() -> bool {
    let method = hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, ":method");
    matches!(method, Ok(Some(method)) if [&b"GET"[..], b"HEAD", b"OPTIONS"].contains(&method.as_slice()))
}

/// The filter's counters; Envoy shows them with the prefix `wasmcustom.`.
#[derive(Clone, Copy)]
pub struct Metrics {
    matched: Option<u32>,
    expired: Option<u32>,
    looped: Option<u32>,
    uncarried: Option<u32>,
    spent: Option<u32>,
    rejected: Option<u32>,
    hash: Option<u32>,
    active: Option<u32>,
}

/// The metrics, defined once per VM.
///
/// Envoy keeps a record of each definition, even of a known name, for the life of the VM.
static METRICS: OnceLock<Metrics> = OnceLock::new();

impl Metrics {
    /// The metrics of this VM. Must run in the root context.
    pub fn of_vm() -> Self {
        *METRICS.get_or_init(Self::define)
    }

    fn define() -> Self {
        let define = |kind, name| hostcalls::define_metric(kind, name).ok();
        Self {
            matched: define(MetricType::Counter, "intercept_matched_total"),
            expired: define(MetricType::Counter, "intercept_expired_total"),
            looped: define(MetricType::Counter, "intercept_bypassed_loop_total"),
            uncarried: define(MetricType::Counter, "intercept_bypassed_target_total"),
            spent: define(MetricType::Counter, "intercept_bypassed_budget_total"),
            rejected: define(MetricType::Gauge, "intercept_rejected_entries"),
            hash: define(MetricType::Gauge, HASH_METRIC),
            active: define(MetricType::Gauge, ACTIVE_METRIC),
        }
    }

    /// Counts a rerouted request.
    pub fn count_matched(&self) {
        count(self.matched);
    }

    /// Counts a request that met all conditions of an intercept with an expired lease.
    pub fn count_expired(&self) {
        count(self.expired);
    }

    /// Counts a matching request that was left to the cluster.
    pub fn count_bypassed(&self, bypass: Bypass) {
        count(match bypass {
            Bypass::Loop => self.looped,
            Bypass::Target => self.uncarried,
            Bypass::Budget => self.spent,
        });
    }

    /// Records a configuration: rejected entries, hash, and active entries.
    ///
    /// Records the hash last: a proxy that shows it also shows the other values.
    pub fn record_config(&self, rejected: usize, hash: u64, active: usize) {
        record(self.rejected, rejected as u64);
        record(self.active, active as u64);
        record(self.hash, hash);
    }
}

fn record(metric: Option<u32>, value: u64) {
    if let Some(id) = metric {
        let _ = hostcalls::record_metric(id, value);
    }
}

fn count(metric: Option<u32>) {
    if let Some(id) = metric {
        let _ = hostcalls::increment_metric(id, 1);
    }
}

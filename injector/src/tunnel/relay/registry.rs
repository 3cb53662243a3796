//! Which tunnel holds which address, and the memory that all of them may pin together. Knows no HTTP but the handle to send a request with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use hyper::client::conn::http2::SendRequest;
use tokio::sync::mpsc;

use super::metrics::Metrics;
use crate::tunnel::protocol::{Hello, Refusal};
use crate::tunnel::pulse::Signal;
use crate::tunnel::{Address, Body, settings};

/// One open tunnel.
pub(super) struct Tunnel {
    id: u64,
    pub(super) name: String,
    pub(super) identity: Option<String>,
    pub(super) since: SystemTime,
    instance: String,
    sender: SendRequest<Body>,
    signals: mpsc::Sender<Signal>,
    most_streams: usize,
    streams: AtomicUsize,
    requests: AtomicU64,
}

/// A stream of a tunnel, taken until this is dropped.
pub(super) struct Stream(Arc<Tunnel>);

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Tunnel {
    /// `peer_streams`: how many streams the developer's end takes at once.
    pub(super) fn new(
        hello: Hello,
        sender: SendRequest<Body>,
        peer_streams: usize,
        signals: mpsc::Sender<Signal>,
    ) -> Arc<Self> {
        Arc::new(Self {
            // The pulse is a stream as well.
            most_streams: peer_streams
                .min(settings::STREAMS as usize)
                .saturating_sub(1),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: hello.name,
            identity: hello.identity,
            since: SystemTime::now(),
            instance: hello.instance,
            sender,
            signals,
            streams: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
        })
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// A handle to send on; each request uses its own.
    pub(super) fn sender(&self) -> SendRequest<Body> {
        self.sender.clone()
    }

    /// Takes a stream, at once or not at all: what waits inside hyper would neither be sent nor fall back.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Stream> {
        let claimed = self
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < self.most_streams).then_some(taken + 1)
            });
        claimed.is_ok().then(|| Stream(Arc::clone(self)))
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests sent this way so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Tells the developer's end; a pulse too full to take it belongs to a peer that does not listen.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = self.signals.try_send(signal);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All tunnels that take requests.
pub(super) struct Registry {
    tunnels: Mutex<HashMap<Address, Arc<Tunnel>>>,
    metrics: Metrics,
}

impl Registry {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            tunnels: Mutex::default(),
            metrics,
        }
    }

    /// The tunnel that takes requests for this address now.
    pub(super) fn find(&self, address: &Address) -> Option<Arc<Tunnel>> {
        self.lock().get(address).cloned()
    }

    /// Whether this developer machine may have its address: not while another running program has it, unless it says so.
    pub(super) fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        match self.find(&hello.secret.address()) {
            Some(other) if other.instance != hello.instance && !hello.replace => {
                let reason = format!(
                    "intercept {} already has a tunnel, from another running `injector intercept`",
                    other.name
                );
                Err(Refusal::fatal(http::StatusCode::CONFLICT, reason))
            }
            _ => Ok(()),
        }
    }

    /// Sends new requests to this tunnel. What runs on the one before ends there; if that is another program's, it is told.
    pub(super) fn insert(&self, address: Address, tunnel: Arc<Tunnel>) {
        let instance = tunnel.instance.clone();
        let mut tunnels = self.lock();
        let before = tunnels.insert(address, tunnel);
        self.metrics.tunnels.set(tunnels.len() as i64);
        drop(tunnels);
        if let Some(before) = before.filter(|before| before.instance != instance) {
            before.signal(Signal::Replaced);
        }
    }

    /// Takes a tunnel out, unless a newer one already has its address.
    pub(super) fn remove(&self, address: &Address, tunnel: &Tunnel) {
        let mut tunnels = self.lock();
        if tunnels.get(address).is_some_and(|held| held.is(tunnel)) {
            tunnels.remove(address);
            self.metrics.tunnels.set(tunnels.len() as i64);
        }
    }

    /// Tells every developer machine.
    pub(super) fn signal_all(&self, signal: Signal) {
        self.lock()
            .values()
            .for_each(|tunnel| tunnel.signal(signal));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Arc<Tunnel>>> {
        // No code that can panic runs under the lock.
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that answers under way may pin in the relay over all tunnels together.
pub(super) struct Memory(Arc<Mutex<u64>>);

/// One tunnel's share of the memory, given back when dropped.
pub(super) struct Share {
    memory: Arc<Mutex<u64>>,
    bytes: u32,
}

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    /// A quarter of what is left, between 1 and 64 MiB; `None` when not even 1 MiB is.
    pub(super) fn take(&self) -> Option<Share> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quarter = u32::try_from(*left / 4).unwrap_or(u32::MAX);
        let bytes = quarter.clamp(settings::LEAST_WINDOW, settings::CONNECTION_WINDOW);
        *left = left.checked_sub(bytes.into())?;
        Some(Share {
            memory: Arc::clone(&self.0),
            bytes,
        })
    }
}

impl Share {
    /// The connection window that this share is good for.
    pub(super) fn window(&self) -> u32 {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) += u64::from(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn shares_shrink_as_memory_does_and_come_back() {
        let memory = Memory::new(100 * MIB);
        let first = memory.take().unwrap();
        assert_eq!(u64::from(first.window()), 25 * MIB);
        let second = memory.take().unwrap();
        assert_eq!(u64::from(second.window()), 75 * MIB / 4);
        drop((first, second));
        assert_eq!(*memory.0.lock().unwrap(), 100 * MIB);
    }

    #[test]
    fn a_share_is_at_most_64_and_at_least_1_mib_and_then_none() {
        assert_eq!(
            u64::from(Memory::new(1024 * MIB).take().unwrap().window()),
            64 * MIB
        );
        let memory = Memory::new(2 * MIB + 1);
        let shares: Vec<_> = std::iter::from_fn(|| memory.take()).collect();
        assert_eq!(
            shares
                .iter()
                .map(|share| u64::from(share.window()))
                .collect::<Vec<_>>(),
            [MIB, MIB]
        );
    }
}

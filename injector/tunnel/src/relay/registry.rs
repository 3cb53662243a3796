//! Maps addresses to tunnels. Knows no HTTP except for the handle that sends a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::metrics::Metrics;
use crate::memory::{Pinned, Share};
use crate::protocol::{Hello, Refusal};
use crate::pulse::Signal;
use crate::{Address, Body, marks, settings};

/// One open tunnel.
pub(super) struct Tunnel {
    id: u64,
    pub(super) name: String,
    /// The name for response headers.
    pub(super) served_by: HeaderValue,
    pub(super) identity: Option<String>,
    pub(super) since: SystemTime,
    instance: String,
    /// `None` once the connection has ended.
    sender: Mutex<Option<SendRequest<Body>>>,
    signals: mpsc::Sender<Signal>,
    share: Share,
    most_streams: usize,
    streams: AtomicUsize,
    requests: AtomicU64,
    most_requests: u64,
    is_suspect: Arc<AtomicBool>,
}

/// A stream of a tunnel, taken until this is dropped.
pub(super) struct Stream(Arc<Tunnel>);

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Tunnel {
    /// Creates a tunnel.
    ///
    /// `peer_streams` is the developer's end's limit of streams, `is_suspect` is set while its beats are missing, and for `most_requests` see [`crate::Tempo`].
    pub(super) fn new(
        hello: Hello,
        sender: SendRequest<Body>,
        peer_streams: usize,
        share: Share,
        signals: mpsc::Sender<Signal>,
        is_suspect: Arc<AtomicBool>,
        most_requests: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            // The pulse is a stream as well.
            most_streams: peer_streams
                .min(settings::STREAMS as usize)
                .saturating_sub(1),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            served_by: marks::visible(&hello.name),
            name: hello.name,
            identity: hello.identity,
            since: SystemTime::now(),
            instance: hello.instance,
            sender: Mutex::new(Some(sender)),
            signals,
            share,
            streams: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            most_requests,
            is_suspect,
        })
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// A handle to send with; `None` once the connection has ended.
    ///
    /// Each request uses its own, and drops it before it waits for a response.
    pub(super) fn sender(&self) -> Option<SendRequest<Body>> {
        lock(&self.sender).clone()
    }

    /// Runs the connection of the tunnel to its end, or until the last handle to it is dropped.
    ///
    /// Then the tunnel drops its own handle: a request that arrives while the connection ends may stay unseen in the queue (tokio empties a queue whose
    /// reader is gone, but not of what is being added at that moment). Dropping the last handle returns it, and the request itself holds on to the tunnel.
    pub(super) fn drive(
        self: &Arc<Self>,
        connection: impl Future<Output: Send> + Send + 'static,
    ) -> JoinHandle<()> {
        let tunnel = Arc::downgrade(self);
        tokio::spawn(async move {
            let _ = connection.await;
            if let Some(tunnel) = tunnel.upgrade() {
                let handle = lock(&tunnel.sender).take();
                drop(handle);
            }
        })
    }

    /// Its share of the relay's memory.
    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Takes a stream, or returns `None` at once.
    ///
    /// A request that waits inside hyper would neither be sent nor fall back.
    ///
    /// Also `None` while stalled readers pin too much memory.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Stream> {
        if self.share.is_spent() {
            return None;
        }
        let claimed = self
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < self.most_streams).then_some(taken + 1)
            });
        claimed.is_ok().then(|| Stream(Arc::clone(self)))
    }

    /// Counts a request, and requests the next tunnel in time.
    pub(super) fn count_request(&self) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if requests.is_multiple_of(self.most_requests) {
            self.signal(Signal::RelayLeaving);
        }
    }

    /// Is a beat of the developer machine missing?
    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// The number of requests sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The number of running requests.
    pub(super) fn under_way(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Sends a signal to the developer's end.
    ///
    /// If the pulse is full, the peer is not listening, and the signal is dropped.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = self.signals.try_send(signal);
    }
}

impl Stream {
    /// Counts the response on this stream while its reader stalls.
    pub(super) fn pin(&self, answer: Incoming) -> Pinned<Incoming> {
        self.0.share.pin(answer)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All tunnels that accept requests, and those that are draining.
pub(super) struct Registry {
    tunnels: Mutex<HashMap<Address, Arc<Tunnel>>>,
    draining: Mutex<Vec<(Address, Weak<Tunnel>)>>,
    metrics: Metrics,
}

impl Registry {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            tunnels: Mutex::default(),
            draining: Mutex::default(),
            metrics,
        }
    }

    /// The tunnel that accepts requests for this address.
    pub(super) fn find(&self, address: &Address) -> Option<Arc<Tunnel>> {
        self.lock().get(address).cloned()
    }

    /// The number of running requests for this address, including draining tunnels.
    pub(super) fn under_way(&self, address: &Address) -> usize {
        let draining = lock(&self.draining);
        let tunnels = draining.iter().filter(|(of, _)| of == address);
        let draining: usize = tunnels
            .filter_map(|(_, tunnel)| Some(tunnel.upgrade()?.under_way()))
            .sum();
        draining + self.find(address).map_or(0, |tunnel| tunnel.under_way())
    }

    /// May this developer machine have its address?
    ///
    /// Not while another running program holds it, unless the machine asks to replace that.
    pub(super) fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let address = hello.secret.address();
        let draining = lock(&self.draining);
        let is_alive =
            |(of, tunnel): &&(Address, Weak<Tunnel>)| *of == address && tunnel.strong_count() > 0;
        if draining.iter().filter(is_alive).count() >= settings::DRAINING {
            let reason = "requests still run on too many tunnels that this intercept had before";
            return Err(Refusal::for_now(reason));
        }
        drop(draining);
        match self.find(&address) {
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

    /// Registers a tunnel for new requests.
    ///
    /// The previous one drains; if another program owns it, that program gets a signal.
    pub(super) fn insert(&self, address: Address, tunnel: Arc<Tunnel>) {
        let instance = tunnel.instance.clone();
        let mut tunnels = self.lock();
        let before = tunnels.insert(address.clone(), tunnel);
        self.metrics.tunnels.set(tunnels.len() as i64);
        drop(tunnels);
        if let Some(before) = &before {
            self.drain(address, before);
        }
        if let Some(before) = before.filter(|before| before.instance != instance) {
            before.signal(Signal::Replaced);
        }
    }

    /// Removes a tunnel, unless a newer one already has its address.
    pub(super) fn remove(&self, address: &Address, tunnel: &Arc<Tunnel>) {
        self.drain(address.clone(), tunnel);
        let mut tunnels = self.lock();
        if tunnels.get(address).is_some_and(|held| held.is(tunnel)) {
            tunnels.remove(address);
            self.metrics.tunnels.set(tunnels.len() as i64);
        }
    }

    /// Tracks running requests of a tunnel that accepts no new ones; its streams keep it alive.
    fn drain(&self, address: Address, tunnel: &Arc<Tunnel>) {
        let mut draining = lock(&self.draining);
        draining.retain(|(_, known)| known.upgrade().is_some_and(|known| !known.is(tunnel)));
        draining.push((address, Arc::downgrade(tunnel)));
    }

    /// Sends a signal to every developer machine.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Events of the namespace that are reported to the developer.

use std::io;
use std::net::SocketAddr;

use tokio::sync::mpsc;

/// Something to tell.
#[derive(Debug)]
pub enum Event {
    /// What listens at this port in the namespace is reachable at the host's 127.0.0.1.
    Published(u16),
    /// It is not: another program of the host has the port, or the user may not bind it.
    NotPublished(u16, io::Error),
    /// The program has sent datagrams into the cluster, which carries none.
    DatagramsLost(SocketAddr),
    /// The helper process is gone: no more datagrams, and no connections into the namespace.
    HelperLost,
}

/// Takes events. From all tasks of the engine → to the reader of [`Event`]s.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

/// Events that wait for a reader; more are left out.
const MAX_WAITING: usize = 256;

impl Events {
    /// Both ends.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (events_tx, events_rx) = mpsc::channel(MAX_WAITING);
        (Self(events_tx), events_rx)
    }

    /// Tells an event; drops it where too many wait.
    pub fn tell(&self, event: Event) {
        let _ = self.0.try_send(event);
    }
}

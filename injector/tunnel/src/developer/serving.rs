//! State that all requests of one tunnel share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::HeaderValue;
use tokio::sync::mpsc;

use super::hold::Held;
use super::pool::Pool;
use super::{Dial, Event, Local, UnderWay};
use crate::memory::Share;
use crate::pulse::Signal;

/// State that all requests of one tunnel share.
pub(super) struct Serving {
    pub(super) local: Local,
    pub(super) dial: Dial,
    /// The intercept's name.
    pub(super) name: HeaderValue,
    pub(super) held: Held,
    pub(super) pool: Pool,
    /// Memory for uploads that the developer's server does not read.
    pub(super) share: Share,
    /// The program is shutting down: open no new connections.
    pub(super) leaving: Arc<AtomicBool>,
    /// Report each request as an event?
    pub(super) reports_requests: bool,
    pub(super) under_way: UnderWay,
    /// requests → the log.
    pub(super) events: mpsc::Sender<Event>,
    /// the relay → the keeper of the tunnel.
    pub(super) signals: mpsc::Sender<Signal>,
    /// Dropping this ends our half of the pulse, so that the relay sends no new requests.
    pub(super) pulse: std::sync::Mutex<Option<mpsc::Sender<Signal>>>,
}

//! What every request of one tunnel needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::HeaderValue;
use tokio::sync::mpsc;

use super::hold::Held;
use super::{Dial, Event, Local, UnderWay};
use crate::memory::Share;
use crate::pulse::Signal;

/// What every request of one tunnel needs.
pub(super) struct Serving {
    pub(super) local: Local,
    pub(super) dial: Dial,
    /// The intercept's name.
    pub(super) name: HeaderValue,
    pub(super) held: Held,
    /// What uploads may pin that the developer's server does not read.
    pub(super) share: Share,
    /// The program ends: dial nothing new.
    pub(super) leaving: Arc<AtomicBool>,
    pub(super) under_way: UnderWay,
    /// requests → the log.
    pub(super) events: mpsc::Sender<Event>,
    /// the relay → the keeper of the tunnel.
    pub(super) signals: mpsc::Sender<Signal>,
    /// Ends this end's half of the pulse when dropped, which tells the relay to send nothing new.
    pub(super) pulse: std::sync::Mutex<Option<mpsc::Sender<Signal>>>,
}

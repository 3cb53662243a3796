//! What the cluster's end runs with, and what all its connections share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};

use super::audit::DialRecord;
use super::developers::{Developers, Limits};
use super::dialer::Dialer;
use super::gate::Gate;
use super::metrics::Metrics;
use crate::config::ClusterConfig;
use crate::policy::Policy;
use crate::resolve::Resolver;
use crate::settings::Tempo;

/// Connections that may be open at once without having become a developer's.
const UNOPENED: usize = 256;
/// What the cluster's end runs with.
pub struct Options {
    /// Decides who may connect.
    pub gate: Arc<dyn Gate>,
    /// Resolves names.
    pub resolver: Resolver,
    /// What may be dialled.
    pub policy: Policy,
    /// What each developer may have.
    pub limits: Limits,
    /// What developers are told of the cluster.
    pub config: ClusterConfig,
    /// How a peer that is gone is noticed.
    pub tempo: Tempo,
    /// How long a dial may take, [`crate::DIAL`] in production.
    pub dial: Duration,
    /// How long connections may take to end when this end shuts down.
    pub grace: Duration,
    /// How often the gate is asked again.
    pub recheck: Duration,
    /// How long an intercept may be away before its connections are ended.
    pub absence: Duration,
    /// One record for each dial. A stream is held until its record is taken.
    pub audit: mpsc::Sender<DialRecord>,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaving {
    Not,
    /// Nothing new is taken.
    Gently,
    /// What still runs is cut off.
    Now,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) gate: Arc<dyn Gate>,
    pub(super) dialer: Dialer,
    pub(super) developers: Developers,
    pub(super) config: Bytes,
    pub(super) tempo: Tempo,
    pub(super) recheck: Duration,
    pub(super) absence: Duration,
    pub(super) audit: mpsc::Sender<DialRecord>,
    pub(super) metrics: Metrics,
    pub(super) unopened: Semaphore,
    pub(super) leaving: watch::Sender<Leaving>,
}

impl Shared {
    pub(super) fn new(options: Options) -> io::Result<Self> {
        let metrics = Metrics::default();
        Ok(Self {
            gate: options.gate,
            dialer: Dialer::new(options.resolver, options.policy, options.dial),
            developers: Developers::new(options.limits),
            config: serde_json::to_vec(&options.config)?.into(),
            tempo: options.tempo,
            recheck: options.recheck,
            absence: options.absence,
            audit: options.audit,
            metrics,
            unopened: Semaphore::new(UNOPENED),
            leaving: watch::Sender::new(Leaving::Not),
        })
    }
}

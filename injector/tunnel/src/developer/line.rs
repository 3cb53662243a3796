//! Reports the outcome of one request.
//!
//! Owns when it is reported, and that it is reported once; knows nothing of bodies and connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};

use super::serving::Serving;
use super::{Event, RequestLine, RequestOutcome};
use crate::headers;

/// A request without an outcome so far.
///
/// Dropped before its response, it counts as cancelled by the client.
pub(super) struct Line {
    serving: Arc<Serving>,
    method: Method,
    path: String,
    started: Instant,
    /// The status of the response, and when its head arrived.
    answered: Option<(u16, Duration)>,
    told: bool,
}

impl Line {
    pub(super) fn start<B>(serving: &Arc<Serving>, request: &Request<B>) -> Self {
        let path = request.uri().path_and_query();
        Self {
            serving: Arc::clone(serving),
            method: request.method().clone(),
            path: path.map_or_else(|| "/".to_owned(), ToString::to_string),
            started: Instant::now(),
            answered: None,
            told: false,
        }
    }

    /// Records the response head. The report waits for the end, or for [`Line::goes_on`].
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.answered = Some((status.as_u16(), self.started.elapsed()));
    }

    /// Reports a long response without waiting for its end.
    pub(super) fn goes_on(&mut self) {
        if !self.told {
            self.tell(RequestOutcome::Answered);
        }
    }

    /// Has the outcome been reported?
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Reports a response that ended early.
    pub(super) fn broke_off(&mut self, bytes: u64, reason: String) {
        self.tell(RequestOutcome::BrokeOff { bytes, reason });
    }

    /// Reports a fallback to the in-cluster version, without a request to the developer's server.
    pub(super) fn fell_back(mut self, reason: String) {
        self.tell(RequestOutcome::FellBack(reason));
    }

    /// Reports that the developer's server broke off before it answered.
    ///
    /// The client gets this status, unless the request is safe: then the in-cluster version answers (RFC 9110 §9.2.1; see [`crate::marks`]).
    pub(super) fn lost(self, status: StatusCode, reason: String) {
        if headers::is_safe(&self.method) {
            return self.fell_back(reason);
        }
        self.failed(status, reason);
    }

    /// Reports that the client gets this status in place of the response, whatever the method.
    pub(super) fn failed(mut self, status: StatusCode, reason: String) {
        self.answered(status);
        self.tell(RequestOutcome::Lost(reason));
    }

    /// Never waits: a stalled terminal must not hold up requests.
    fn tell(&mut self, outcome: RequestOutcome) {
        self.told = true;
        if !self.serving.reports_requests {
            return;
        }
        let (status, duration) = match self.answered {
            Some((status, duration)) => (Some(status), duration),
            None => (None, self.started.elapsed()),
        };
        let _ = self.serving.events.try_send(Event::Request(RequestLine {
            method: self.method.clone(),
            path: self.path.clone(),
            status,
            duration,
            outcome,
        }));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        match self.answered {
            _ if self.told => {}
            Some(_) => self.tell(RequestOutcome::Answered),
            None => self.tell(RequestOutcome::Cancelled),
        }
    }
}

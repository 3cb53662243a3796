//! The line that is told about one request. Owns when it is told, and that it is told once; knows nothing of bodies and connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};

use super::serving::Serving;
use super::{Event, RequestLine, RequestOutcome};
use crate::headers;

/// A request of which nothing final is known yet. One that is dropped before its answer was cancelled by its client.
pub(super) struct Line {
    serving: Arc<Serving>,
    method: Method,
    path: String,
    started: Instant,
    /// The answer's status, and when its head came.
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

    /// The head of an answer is there. The line waits for the rest, or for [`Line::goes_on`].
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.answered = Some((status.as_u16(), self.started.elapsed()));
    }

    /// The answer is a long one: the line is told without waiting for its end.
    pub(super) fn goes_on(&mut self) {
        if !self.told {
            self.tell(RequestOutcome::Answered);
        }
    }

    /// Whether the line was told already.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// The answer ended before it was whole.
    pub(super) fn broke_off(&mut self, bytes: u64, reason: String) {
        self.tell(RequestOutcome::BrokeOff { bytes, reason });
    }

    /// The in-cluster version answers in place of the developer's server, which was not asked.
    pub(super) fn fell_back(mut self, reason: String) {
        self.tell(RequestOutcome::FellBack(reason));
    }

    /// The developer's server broke off before it answered, and the client's answer is this status unless the request is safe: then the in-cluster version
    /// answers (RFC 9110 §9.2.1; see [`crate::marks`]).
    pub(super) fn lost(mut self, status: StatusCode, reason: String) {
        if headers::is_safe(&self.method) {
            return self.fell_back(reason);
        }
        self.answered(status);
        self.tell(RequestOutcome::Lost(reason));
    }

    /// Never waits: a terminal that stands still must not hold up requests.
    fn tell(&mut self, outcome: RequestOutcome) {
        self.told = true;
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

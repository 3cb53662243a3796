//! The bodies of requests and responses on the developer's end.
//!
//! Each ends as it was sent, complete or broken off. Knows nothing of heads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::line::Line;
use super::local::Connection;
use super::pool::Pool;
use crate::memory::{Pinned, poll_next};
use crate::{BoxError, headers, marks, with_causes};

/// A response that takes longer is reported before its end.
const LONG: Duration = Duration::from_secs(1);

/// A request body, framed towards the developer's server as by the client.
pub(super) struct Upload {
    body: Pinned<Incoming>,
    /// The head gives no length.
    ///
    /// hyper would ignore such a body if it is empty, and always with GET and HEAD.
    chunked: bool,
    /// hyper decides on its first poll whether there is a body.
    begun: bool,
}

impl Upload {
    pub(super) fn new(body: Pinned<Incoming>, chunked: bool) -> Self {
        Self {
            body,
            chunked,
            begun: false,
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.begun = true;
        poll_next(&mut self.body, true, cx)
    }

    fn is_end_stream(&self) -> bool {
        (self.begun || !self.chunked) && self.body.is_end_stream()
    }

    /// Exact only if the head gives the length.
    ///
    /// hyper would add `content-length: 0` to a head without a body.
    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(length) if length > 0 => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}

/// A response body. If it breaks off, it ends with trailers that say so.
pub(super) struct Answer {
    body: Incoming,
    is_h2: bool,
    line: Line,
    passed: u64,
    broke_off: bool,
    long: Pin<Box<Sleep>>,
    /// None once it has gone to the pool.
    connection: Option<Connection>,
    pool: Option<Pool>,
}

impl Answer {
    pub(super) fn new(
        body: Incoming,
        is_h2: bool,
        line: Line,
        connection: Connection,
        pool: Option<Pool>,
    ) -> Self {
        Self {
            body,
            is_h2,
            line,
            passed: 0,
            broke_off: false,
            long: Box::pin(sleep(LONG)),
            connection: Some(connection),
            pool,
        }
    }

    /// The response has ended, and its connection may take another request.
    ///
    /// Not after a response without bytes: a server may still send some (after a HEAD or a 304, for instance), and they would answer that request.
    fn ended(&mut self) {
        let connection = self.connection.take().filter(|_| self.passed > 0);
        if let (Some(pool), Some(connection)) = (&self.pool, connection) {
            pool.put(connection);
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        let next = poll_next(&mut self.body, self.is_h2, cx);
        if next.is_pending() && !self.line.is_told() && self.long.as_mut().poll(cx).is_ready() {
            self.line.goes_on();
        }
        next.map_err(|error| with_causes(&*error))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.broke_off {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.next(cx)) {
            None => {
                self.ended();
                None
            }
            Some(Ok(mut frame)) => {
                self.passed += frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.body.is_end_stream() {
                    self.ended();
                }
                if let Some(trailers) = frame.trailers_mut() {
                    headers::remove_ours(trailers);
                }
                Some(Ok(frame))
            }
            Some(Err(reason)) => {
                self.broke_off = true;
                let trailers = marks::broken_off(&reason);
                let passed = self.passed;
                self.line.broke_off(passed, reason);
                Some(Ok(Frame::trailers(trailers)))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.broke_off || self.body.is_end_stream()
    }
}

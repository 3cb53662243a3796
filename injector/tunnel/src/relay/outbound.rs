//! The body of a response to Envoy. Holds its stream of the tunnel until it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::AbortHandle;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::registry::Stream;
use crate::memory::{Pinned, poll_next};
use crate::tasks::{self, Upload};
use crate::{BoxError, headers, marks};

/// A response body. If it breaks off, the client first gets all data before that.
pub(super) struct Outbound {
    /// `None` once it has broken off.
    open: Option<(Pinned<Incoming>, Stream)>,
    upload: Arc<Upload>,
    sending: Arc<Sending>,
}

/// Data that hyper has accepted but not written. h2 discards it when the stream is reset.
#[derive(Default)]
struct Sending {
    chunks: AtomicUsize,
    waiting: AtomicWaker,
}

/// Data that reports when it is written.
struct Chunk {
    data: Bytes,
    sending: Arc<Sending>,
}

impl Outbound {
    pub(super) fn new(body: Incoming, stream: Stream, upload: Arc<Upload>) -> Self {
        Self {
            open: Some((stream.pin(body), stream)),
            upload,
            sending: Arc::default(),
        }
    }

    /// Never ready: ends the polling task once all data is sent.
    fn poll_break_off<T>(&self, cx: &Context<'_>, task: &AbortHandle) -> Poll<T> {
        self.sending.waiting.register(cx.waker());
        if self.sending.chunks.load(SeqCst) == 0 {
            task.abort();
        }
        Poll::Pending
    }
}

impl Sending {
    fn send(self: &Arc<Self>, data: Bytes) -> Bytes {
        self.chunks.fetch_add(1, SeqCst);
        let sending = Arc::clone(self);
        Bytes::from_owner(Chunk { data, sending })
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.sending.chunks.fetch_sub(1, SeqCst) == 1 {
            self.sending.waiting.wake();
        }
    }
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let task = tasks::current();
        if let Some((body, _)) = &mut self.open {
            let error = match ready!(next(body, cx)) {
                Some(Ok(frame)) => {
                    return Poll::Ready(Some(Ok(frame.map_data(|data| self.sending.send(data)))));
                }
                Some(Err(error)) => error,
                None => return Poll::Ready(None),
            };
            if task.is_none() {
                return Poll::Ready(Some(Err(error)));
            }
            self.open = None;
        }
        match task {
            Some(task) => self.poll_break_off(cx, &task),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let open = self.open.as_ref();
        open.map_or_else(SizeHint::default, |(body, _)| body.size_hint())
    }
}

/// The next frame. Unifies the ways in which a body can end.
fn next(
    body: &mut Pinned<Incoming>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    let Some(mut frame) = ready!(poll_next(body, true, cx)?) else {
        return Poll::Ready(None);
    };
    if let Some(trailers) = frame.trailers_mut() {
        if let Some(reason) = marks::broken_off_reason(trailers) {
            return Poll::Ready(Some(Err(reason.into())));
        }
        headers::remove_ours(trailers);
    }
    Poll::Ready(Some(Ok(frame)))
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // A client that has the whole response, or has left, sends nothing more.
        self.upload.stop();
    }
}

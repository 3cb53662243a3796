//! The body of a request as it comes from Envoy. Owns what happens to the rest of it when the answer is early.
//!
//! Over HTTP/1.1 a body that nobody reads ends in a reset, and Envoy then loses the answer and its fallback (55 % of 100 kB POSTs, measured). So what it may
//! still send is read and thrown away, up to what it could repeat at all.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::tunnel::{BoxError, settings};

/// A request's body that drains itself when dropped before its end.
pub(super) struct Inbound {
    body: Option<Incoming>,
    /// Over HTTP/2 an unread body costs a RST_STREAM(NO_ERROR) after the answer, which harms nothing.
    is_h1: bool,
    /// The client waits for a `100` that reading would send.
    held_back: bool,
}

impl Inbound {
    /// `held_back`: the client expects a `100`; nothing is drained then unless the reading had begun.
    pub(super) fn new(body: Incoming, version: http::Version, held_back: bool) -> Self {
        Self {
            body: Some(body),
            is_h1: version < http::Version::HTTP_2,
            held_back,
        }
    }
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.held_back = false;
        let is_h2 = !self.is_h1;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)?);
        if frame.is_none() && is_h2 && !body.is_end_stream() {
            // A reset that says NO_ERROR looks like an end to hyper.
            return Poll::Ready(Some(Err("the client broke off".into())));
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// A length of 0 stays unsaid: hyper would write it into the head of a request that came without one.
    fn size_hint(&self) -> SizeHint {
        let length = self.body.as_ref().and_then(|body| body.size_hint().exact());
        length
            .filter(|length| *length > 0)
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let Some(body) = self
            .body
            .take()
            .filter(|body| self.is_h1 && !self.held_back && !body.is_end_stream())
        else {
            return;
        };
        // Outside of a runtime there is no connection left to read from.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(settings::DRAIN_TIME, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = settings::DRAIN;
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

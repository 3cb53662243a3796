//! The body of an answer as it goes to Envoy. Holds its stream of the tunnel until it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::registry::Stream;
use crate::tunnel::{BoxError, headers, marks};

/// An answer's body. If the tunnel breaks under it, the error makes hyper reset the stream towards Envoy.
pub(super) struct Outbound {
    body: Incoming,
    _stream: Stream,
}

impl Outbound {
    pub(super) fn new(body: Incoming, stream: Stream) -> Self {
        Self {
            body,
            _stream: stream,
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
        let Some(mut frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
            return match self.body.is_end_stream() {
                true => Poll::Ready(None),
                // A reset that says NO_ERROR looks like an end to hyper.
                false => Poll::Ready(Some(Err("the developer machine broke off".into()))),
            };
        };
        if let Some(trailers) = frame.trailers_mut() {
            if let Some(reason) = marks::broken_off_reason(trailers) {
                return Poll::Ready(Some(Err(reason.into())));
            }
            headers::remove_ours(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

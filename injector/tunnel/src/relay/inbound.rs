//! The body of a request from Envoy, and how to end an upload that is no longer wanted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::memory::{Pinned, Share, poll_next};
use crate::tasks::Upload;
use crate::{BoxError, settings};

/// A request body.
pub(super) struct Inbound {
    body: Pinned<Incoming>,
    is_http2: bool,
    upload: Arc<Upload>,
}

/// Reads and discards a short body that is already arriving, to reuse its connection.
pub(super) async fn skip(body: Incoming, upload: &Upload) {
    let all = Limited::new(body, settings::SKIP).collect();
    let all = timeout(settings::SKIP_TIME, all).await;
    if all.is_ok_and(|all| all.is_ok()) {
        upload.ended();
    }
}

impl Inbound {
    pub(super) fn new(
        body: Incoming,
        version: Version,
        upload: &Arc<Upload>,
        share: &Share,
    ) -> Self {
        Self {
            is_http2: version == Version::HTTP_2,
            body: share.pin(body),
            upload: Arc::clone(upload),
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
        self.upload.sending();
        let is_http2 = self.is_http2;
        let frame = ready!(poll_next(&mut self.body, is_http2, cx)?);
        if frame.is_none() || self.body.is_end_stream() {
            self.upload.ended();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Leaves out a length of 0: hyper would add it to the head of a request that came without one.
    fn size_hint(&self) -> SizeHint {
        let length = self.body.size_hint().exact();
        length
            .filter(|length| *length > 0)
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

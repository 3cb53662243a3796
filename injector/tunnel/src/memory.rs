//! Limits the memory that slow peers pin at one end of the tunnels.
//!
//! Data received for a body whose reader takes no more. Knows bodies by their share only.
//!
//! A flow-control window cannot be taken back (RFC 9113 §6.9.2), so windows are not divided in advance: each stream has its own, the connection
//! has room for all of them, and only full ones count. A tunnel that pins as much as is left for all others gets no new requests: however slow the peers of
//! one tunnel are, there is room for another tunnel.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{BoxError, settings};

/// The bytes that all bodies together may pin.
pub(super) struct Memory {
    most: u64,
    pinned: Arc<AtomicU64>,
}

/// One tunnel's share of a [`Memory`].
#[derive(Clone)]
pub(super) struct Share {
    most: u64,
    all: Arc<AtomicU64>,
    own: Arc<AtomicU64>,
}

/// A body, counted as pinned while its reader takes no more of it.
pub(super) struct Pinned<B> {
    body: B,
    share: Share,
    is_pinned: bool,
}

impl Memory {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            pinned: Arc::default(),
        }
    }

    pub(super) fn share(&self) -> Share {
        Share {
            most: self.most,
            all: Arc::clone(&self.pinned),
            own: Arc::default(),
        }
    }
}

impl Share {
    /// Is the share used up, so that no new request may be accepted?
    pub(super) fn is_spent(&self) -> bool {
        let left = self.most.saturating_sub(self.all.load(Relaxed));
        self.own.load(Relaxed) + settings::PINNED > left
    }

    /// Counts a body while it is full.
    ///
    /// Until the first poll, any body that is not empty counts as full.
    pub(super) fn pin<B: HttpBody>(&self, body: B) -> Pinned<B> {
        let is_empty = body.is_end_stream();
        let mut pinned = Pinned {
            body,
            share: self.clone(),
            is_pinned: false,
        };
        pinned.recount(!is_empty);
        pinned
    }
}

impl<B> Pinned<B> {
    fn recount(&mut self, is_pinned: bool) {
        if self.is_pinned == is_pinned {
            return;
        }
        self.is_pinned = is_pinned;
        for counter in [&self.share.all, &self.share.own] {
            match is_pinned {
                true => counter.fetch_add(settings::PINNED, Relaxed),
                false => counter.fetch_sub(settings::PINNED, Relaxed),
            };
        }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Pinned<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // A reader that got data may not poll again, although more may follow.
        self.recount(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Polls the next frame of a body. Over HTTP/2, hyper reports a reset with NO_ERROR as an end.
pub(super) fn poll_next<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin>(
    body: &mut B,
    is_http2: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    let next = ready!(Pin::new(&mut *body).poll_frame(cx));
    if next.is_none() && is_http2 && !body.is_end_stream() {
        return Poll::Ready(Some(Err("the stream was reset".into())));
    }
    Poll::Ready(next.map(|frame| frame.map_err(Into::into)))
}

impl<B> Drop for Pinned<B> {
    fn drop(&mut self) {
        self.recount(false);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn body() -> Full<Bytes> {
        Full::new(Bytes::from_static(b"data"))
    }

    fn pin_until_spent(share: &Share) -> Vec<Pinned<Full<Bytes>>> {
        let next = || (!share.is_spent()).then(|| share.pin(body()));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn one_share_leaves_room_for_others() {
        let memory = Memory::new(16 * settings::PINNED);
        let (one, other) = (memory.share(), memory.share());
        let held = pin_until_spent(&one);
        assert_eq!(held.len(), 8);
        assert_eq!(pin_until_spent(&other).len(), 4);
        drop(held);
        assert_eq!(pin_until_spent(&other).len(), 8);
    }

    #[tokio::test]
    async fn a_body_counts_while_it_is_full() {
        let memory = Memory::new(2 * settings::PINNED);
        let share = memory.share();
        let mut pinned = share.pin(body());
        assert!(share.is_spent(), "nobody asked it yet");
        assert!(pinned.frame().await.is_some());
        assert!(share.is_spent(), "nobody asked it again");
        assert!(pinned.frame().await.is_none());
        assert!(!share.is_spent(), "it had nothing more");
        let _empty = share.pin(Full::new(Bytes::new()));
        assert!(!share.is_spent());
    }
}

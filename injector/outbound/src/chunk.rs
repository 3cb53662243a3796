//! Bytes on their way into HTTP/2, and the count of those that have not left yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of one stream that h2 holds: a reset would throw them away.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

impl InFlight {
    /// Ready once all have left.
    pub(crate) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        match self.bytes.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// One piece of a stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Bytes,
    length: usize,
    in_flight: Option<Arc<InFlight>>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Chunk {
    /// `memory`: given back once the bytes have left.
    pub(crate) fn new(
        bytes: Bytes,
        in_flight: &Arc<InFlight>,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let length = bytes.len();
        in_flight.bytes.fetch_add(length, Ordering::AcqRel);
        Self {
            bytes,
            length,
            in_flight: Some(Arc::clone(in_flight)),
            _memory: memory,
        }
    }
}

/// A body that is not counted.
impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self {
            length: bytes.len(),
            bytes,
            in_flight: None,
            _memory: None,
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.bytes.fetch_sub(self.length, Ordering::AcqRel);
            in_flight.waker.wake();
        }
    }
}

//! Tells a peer that is gone: a stream that fails once nothing was read from it for too long.
//!
//! Looked at when writing too: with a peer that takes nothing, h2 stops reading. What both ends send to be heard is a request of the developer's end, [`crate::settings::Tempo`]:
//! its headers have no flow control, and h2 counts no requests that are answered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A stream that fails with [`io::ErrorKind::TimedOut`] once its peer is silent.
pub(crate) struct Silence<T> {
    io: T,
    limit: Duration,
    last_read: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<T> Silence<T> {
    /// Watches `io`; needs a runtime.
    pub(crate) fn new(io: T, limit: Duration) -> Self {
        let last_read = Instant::now();
        Self {
            io,
            limit,
            last_read,
            timer: Box::pin(sleep_until(last_read + limit)),
        }
    }

    fn or_dead<R>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if result.is_ready() {
            return result;
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let due = self.last_read + self.limit;
            if Instant::now() >= due {
                let text = format!("nothing was heard from the other end for {:?}", self.limit);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Silence<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.last_read = Instant::now();
        }
        self.or_dead(cx, result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Silence<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.or_dead(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.or_dead(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.or_dead(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.or_dead(cx, result)
    }
}

//! Tells a peer that is gone from one that is merely silent on some stream: any byte counts, whatever it belongs to. Knows bytes only, nothing of HTTP.
//!
//! A time-out on reads alone is not enough: with a ping of its own to send and a peer that takes nothing, h2 stops reading, so that nobody would notice.
//! So the deadline is looked at whenever the connection is polled, to read or to write.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What happens to bytes that pass: counting, on the relay.
pub(super) trait Meter: Send + Unpin + 'static {
    /// So many bytes came from the peer.
    fn read(&self, bytes: usize);
    /// So many bytes went to the peer.
    fn written(&self, bytes: usize);
}

impl Meter for () {
    fn read(&self, _: usize) {}
    fn written(&self, _: usize) {}
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] once nothing was read from it for the given time.
pub(super) struct Liveness<T, M = ()> {
    io: T,
    meter: M,
    silence: Duration,
    last_read: Instant,
    deadline: Pin<Box<Sleep>>,
}

impl<T, M> Liveness<T, M> {
    pub(super) fn new(io: T, silence: Duration, meter: M) -> Self {
        Self {
            io,
            meter,
            silence,
            last_read: Instant::now(),
            deadline: Box::pin(sleep(silence)),
        }
    }

    /// Ready when the peer is dead. Moves the timer only when it fires, not at every read.
    fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.deadline.as_mut().poll(cx));
            let due = self.last_read + self.silence;
            if due <= Instant::now() {
                let text = format!(
                    "nothing was heard from the other end of the tunnel for {:?}",
                    self.silence
                );
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            self.deadline.as_mut().reset(due);
        }
    }
}

impl<T: AsyncRead + Unpin, M: Meter> AsyncRead for Liveness<T, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(cx, buf) {
            let read = buf.filled().len() - before;
            if read > 0 {
                self.last_read = Instant::now();
                self.meter.read(read);
            }
            return Poll::Ready(result);
        }
        self.poll_dead(cx).map(Err)
    }
}

impl<T: AsyncWrite + Unpin, M: Meter> AsyncWrite for Liveness<T, M> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.poll_dead(cx).map(Err),
            ready => ready,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Pending => self.poll_dead(cx).map(Err),
            ready => ready,
        }
    }
}

impl<T, M: Meter> Liveness<T, M> {
    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => self.poll_dead(cx).map(Err),
            Poll::Ready(Ok(written)) => {
                self.meter.written(written);
                Poll::Ready(Ok(written))
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_dead_after_the_silence() {
        let (end, _peer) = duplex(64);
        let started = Instant::now();
        let error = Liveness::new(end, SILENCE, ()).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_now_and_then_is_life() {
        let (end, mut peer) = duplex(64);
        let mut end = Liveness::new(end, SILENCE, ());
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                peer.write_u8(1).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        let started = Instant::now();
        let mut read = 0;
        while end.read_u8().await.is_ok() {
            read += 1;
        }
        assert_eq!(
            (read, started.elapsed()),
            (5, Duration::from_secs(5 * 5) + SILENCE)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_noticed_by_a_writer_that_does_not_read() {
        let (end, _peer) = duplex(64);
        let error = Liveness::new(end, SILENCE, ())
            .write_all(&[0; 1024])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

//! Detects a dead peer, as opposed to a stream without traffic: any received byte counts.
//!
//! Sends this end's beats, so that the peer can do the same.
//!
//! A read timeout alone is not enough: while h2 has data to send and the peer takes none, h2 stops reading, so that the loss would go unnoticed.
//! So every poll of the connection, to read or to write, checks the clock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Tempo;
use super::beat::{Beat, Frames};

/// Observes the bytes of a connection and the silence of its peer.
///
/// The relay counts and remembers both.
pub(super) trait Meter: Send + Unpin + 'static {
    /// Counts bytes from the peer.
    fn read(&self, bytes: usize);
    /// Counts bytes to the peer.
    fn written(&self, bytes: usize);
    /// Called when a beat is missing, and when something arrives again.
    fn suspect(&self, is_suspect: bool);
}

impl Meter for () {
    fn read(&self, _: usize) {}
    fn written(&self, _: usize) {}
    fn suspect(&self, _: bool) {}
}

/// A stream that sends beats, and fails with [`io::ErrorKind::TimedOut`] after a silence.
pub(super) struct Liveness<T, M = ()> {
    io: T,
    meter: M,
    tempo: Tempo,
    frames: Frames,
    beat: Beat,
    next_beat: Instant,
    last_read: Instant,
    is_suspect: bool,
    /// Fires for the next beat, or when the silence has lasted too long.
    timer: Pin<Box<Sleep>>,
}

impl<T, M> Liveness<T, M> {
    /// `frames` tracks the frames that this end will write.
    pub(super) fn new(io: T, frames: Frames, tempo: Tempo, meter: M) -> Self {
        let now = Instant::now();
        Self {
            io,
            meter,
            tempo,
            frames,
            beat: Beat::default(),
            next_beat: now + tempo.beat,
            last_read: now,
            is_suspect: false,
            timer: Box::pin(sleep_until(now)),
        }
    }
}

impl<T: AsyncWrite + Unpin, M: Meter> Liveness<T, M> {
    /// Sends beats, and returns an error once the peer is dead. Reading moves no timer.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.last_read + self.tempo.silence {
                let text = format!(
                    "nothing was heard from the other end of the tunnel for {:?}",
                    self.tempo.silence
                );
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            if !self.is_suspect && now >= self.last_read + self.tempo.suspect {
                self.is_suspect = true;
                self.meter.suspect(true);
            }
            if now >= self.next_beat {
                self.beat.is_due();
                self.next_beat = now + self.tempo.beat;
            }
            let patience = match self.is_suspect {
                true => self.tempo.silence,
                false => self.tempo.suspect,
            };
            let due = (self.last_read + patience).min(self.next_beat);
            self.timer.as_mut().reset(due);
        }
        match self.beat.poll_send(&mut self.io, &self.frames, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            _ => Poll::Pending,
        }
    }

    fn heard(&mut self, bytes: usize) {
        self.last_read = Instant::now();
        self.meter.read(bytes);
        if self.is_suspect {
            self.is_suspect = false;
            self.meter.suspect(false);
        }
    }

    /// Writes with `write`, after any beat that is partly sent.
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let result = match self.beat.poll_send(&mut self.io, &self.frames, cx) {
            Poll::Ready(Ok(())) => write(Pin::new(&mut self.io), cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        let Poll::Ready(Ok(written)) = result else {
            return self.or_dead(cx, result);
        };
        self.meter.written(written);
        let mut left = written;
        for buf in bufs {
            let passed = left.min(buf.len());
            self.frames.follow(&buf[..passed]);
            left -= passed;
        }
        result
    }

    fn or_dead<R>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match result {
            Poll::Pending => self.poll_clock(cx).map(Err),
            ready => ready,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, M: Meter> AsyncRead for Liveness<T, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.heard(read);
            // A peer that never stops sending must not keep this end from sending beats.
            if let Poll::Ready(error) = self.poll_clock(cx) {
                return Poll::Ready(Err(error));
            }
        }
        self.or_dead(cx, result)
    }
}

impl<T: AsyncWrite + Unpin, M: Meter> AsyncWrite for Liveness<T, M> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, &[io::IoSlice::new(buf)], |io, cx| {
            io.poll_write(cx, buf)
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, bufs, |io, cx| io.poll_write_vectored(cx, bufs))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    fn liveness(io: DuplexStream) -> Liveness<DuplexStream> {
        Liveness::new(io, Frames::of_server(), Tempo::default(), ())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_peer_is_dead_after_silence() {
        let (end, _peer) = duplex(64);
        let started = Instant::now();
        let error = liveness(end).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), Tempo::default().silence);
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_now_and_then_is_life() {
        let (end, mut peer) = duplex(64);
        let mut end = liveness(end);
        tokio::spawn(async move {
            for _ in 0..5 {
                sleep(Duration::from_secs(5)).await;
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
            (5, Duration::from_secs(5 * 5) + Tempo::default().silence)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn writer_notices_peer_that_takes_nothing() {
        let (end, _peer) = duplex(64);
        let error = liveness(end).write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[derive(Clone, Default)]
    struct Suspicions(Arc<Mutex<Vec<(bool, Instant)>>>);

    impl Meter for Suspicions {
        fn read(&self, _: usize) {}
        fn written(&self, _: usize) {}
        fn suspect(&self, is_suspect: bool) {
            self.0.lock().unwrap().push((is_suspect, Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_suspect_until_next_byte() {
        let (end, mut peer) = duplex(64);
        let suspicions = Suspicions::default();
        let tempo = Tempo::default();
        let mut end = Liveness::new(end, Frames::of_server(), tempo, suspicions.clone());
        let started = Instant::now();
        tokio::spawn(async move {
            sleep(Duration::from_secs(2)).await;
            peer.write_u8(1).await.unwrap();
            std::future::pending::<()>().await;
        });
        while end.read_u8().await.is_ok() {}
        let said: Vec<_> = suspicions.0.lock().unwrap().clone();
        let said: Vec<_> = said
            .iter()
            .map(|(is_suspect, at)| (*is_suspect, *at - started))
            .collect();
        let again = Duration::from_secs(2);
        assert_eq!(
            said,
            [
                (true, tempo.suspect),
                (false, again),
                (true, again + tempo.suspect)
            ]
        );
    }

    /// Beats are sent between frames that are written in pieces, and split none of them.
    #[tokio::test(start_paused = true)]
    async fn beats_cut_no_frame() {
        let (end, mut peer) = duplex(16);
        let mut end = liveness(end);
        let frame = [&[0, 0, 100, 0, 0, 0, 0, 0, 1][..], &[7; 100]].concat();
        let whole = frame.clone();
        let writing = tokio::spawn(async move {
            for _ in 0..20 {
                end.write_all(&whole).await.unwrap();
                let _ = tokio::time::timeout(Duration::from_millis(700), end.read_u8()).await;
            }
            end
        });
        let (mut frames, mut beats) = (0, 0);
        while frames < 20 {
            let mut head = [0; 9];
            peer.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[2])];
            for byte in &mut payload {
                // As slowly as a congested link.
                sleep(Duration::from_millis(10)).await;
                *byte = peer.read_u8().await.unwrap();
            }
            match head[3] {
                0 => {
                    assert_eq!([&head[..], &payload].concat(), frame);
                    frames += 1;
                }
                kind => {
                    assert_eq!((kind, payload.len()), (0xfb, 0));
                    beats += 1;
                    peer.write_u8(1).await.unwrap();
                }
            }
        }
        assert!(beats >= 20, "{beats} beats");
        writing.await.unwrap();
    }
}

//! One connection into the cluster, as a stream of HTTP/2: bytes both ways, half-close is END_STREAM, a reset is RST_STREAM.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

use crate::chunk::{Chunk, InFlight};
use crate::settings::CHUNK;

/// One connection into the cluster. Dropped before both directions have ended, it resets the other end.
#[derive(Debug)]
pub struct Connection {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// What comes from the other end.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: RecvStream,
    /// Received, and not yet read.
    rest: Bytes,
    is_ended: bool,
}

/// What goes to the other end.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: SendStream<Chunk>,
    in_flight: Arc<InFlight>,
    /// Bytes that all connections of a developer may have waiting, where that is bounded.
    memory: Option<Arc<Semaphore>>,
    is_ended: bool,
}

impl Connection {
    pub(crate) fn new(
        reader: RecvStream,
        writer: SendStream<Chunk>,
        memory: Option<Arc<Semaphore>>,
    ) -> Self {
        Self {
            reader: Reader {
                stream: reader,
                rest: Bytes::new(),
                is_ended: false,
            },
            writer: Writer {
                stream: writer,
                in_flight: Arc::default(),
                memory,
                is_ended: false,
            },
        }
    }

    fn has_ended(&self) -> bool {
        self.reader.is_ended && self.writer.is_ended
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.has_ended() {
            // RFC 9113, section 8.5: any error of the TCP connection.
            self.writer.stream.send_reset(Reason::CONNECT_ERROR);
        }
    }
}

impl Reader {
    /// The next bytes; `None` at the end. What is read is given back to the window by [`Self::release`].
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(bytes)) => Poll::Ready(Some(Ok(bytes))),
            Some(Err(error)) => Poll::Ready(Some(Err(reset(error)))),
            None => {
                self.is_ended = true;
                Poll::Ready(None)
            }
        }
    }

    /// So many bytes are done with.
    pub(crate) fn release(&mut self, bytes: usize) {
        // Fails only where more is given back than was received.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }
}

impl Writer {
    /// Room for some bytes. Taken only when there is something to send: a stream that waits must not hold what another one needs.
    pub(crate) fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.reserve_capacity(CHUNK);
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                return Poll::Ready(Ok(capacity.min(CHUNK)));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(reset(error))),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
    }

    /// Gives back room that is not used.
    pub(crate) fn give_back(&mut self) {
        self.stream.reserve_capacity(0);
    }

    /// Sends bytes for which there is room.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        let permit = match &self.memory {
            Some(memory) => {
                let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let permit = Arc::clone(memory).acquire_many_owned(count).await;
                Some(permit.map_err(io::Error::other)?)
            }
            None => None,
        };
        let chunk = Chunk::new(bytes, &self.in_flight, permit);
        self.stream.send_data(chunk, false).map_err(reset)
    }

    /// Half-closes.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.is_ended {
            return Ok(());
        }
        self.is_ended = true;
        let end = Chunk::from(Bytes::new());
        self.stream.send_data(end, true).map_err(reset)
    }

    /// Ready once all that was sent has left.
    pub(crate) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        self.in_flight.poll_empty(cx)
    }

    /// Ready once the other end has reset the stream, or is gone.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let _ = ready!(self.stream.poll_reset(cx));
        Poll::Ready(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reader = &mut self.reader;
        while reader.rest.is_empty() {
            match ready!(reader.poll_next(cx)) {
                Some(Ok(bytes)) => reader.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = reader.rest.len().min(buf.remaining());
        buf.put_slice(&reader.rest[..count]);
        reader.rest.advance(count);
        reader.release(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let writer = &mut self.writer;
        let count = ready!(writer.poll_capacity(cx))?.min(buf.len());
        let bytes = Bytes::copy_from_slice(&buf[..count]);
        let chunk = Chunk::new(bytes, &writer.in_flight, None);
        writer.stream.send_data(chunk, false).map_err(reset)?;
        writer.give_back();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_flushed(cx).map(Ok)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.writer.end())
    }
}

fn reset(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

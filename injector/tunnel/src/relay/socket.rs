//! A data connection's socket: adds what hyper lacks. Knows bytes only, nothing of tunnels.
//!
//! - Graceful close: closing with unread bytes sends a reset, which overtakes the response before it (RFC 9112 §9.6).
//! - Detects a client that left, even if nothing reads the bytes that it left behind.
//! - Adds our mark to responses that hyper generates before it calls our service.
//! - A timeout for heads that have begun.

use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::future::AbortHandle;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::marks::Unavailable;
use crate::{settings, tasks};

/// The socket that hyper reads and writes.
pub(super) struct Socket {
    connection: Arc<Connection>,
    /// Bytes of [`PREFACE`] read so far, while they match it.
    preface: Option<usize>,
    /// Our response, to be written in place of hyper's own.
    refusal: Vec<u8>,
}

/// The state of a data connection outside of hyper.
pub(super) struct Connection {
    stream: TcpStream,
    phase: AtomicU8,
    is_http2: AtomicBool,
    /// A reader waits for bytes, and so will see the end.
    is_reading: AtomicBool,
    /// The number of reads.
    reads: AtomicUsize,
    /// A read has returned the end.
    has_ended: AtomicBool,
    /// Something was written since the last flush.
    is_unflushed: AtomicBool,
    /// When the head that is being read began.
    head: Mutex<Option<Instant>>,
    refused: OnceLock<Unavailable>,
}

/// Dropped with a response body, to record that the response is complete.
pub(super) struct Answering(pub(super) Arc<Connection>);

/// Our service has no request: over HTTP/1.1, hyper writes a response of its own.
const IDLE: u8 = 0;
/// Our service has a request, or its response is incomplete.
const ANSWERING: u8 = 1;
/// The response is complete, but perhaps not flushed.
const ANSWERED: u8 = 2;
/// The rest of the connection is not HTTP.
const SWITCHED: u8 = 3;

/// The start of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// After this many bytes, no other request is possible.
const UNMISTAKABLE: usize = 3;

/// A socket for hyper, and the shared state of its connection.
pub(super) fn pair(stream: TcpStream) -> (Socket, Arc<Connection>) {
    let keep_alive = TcpKeepalive::new()
        .with_time(settings::KEEP_ALIVE)
        .with_interval(settings::KEEP_ALIVE);
    // Without it, a client that vanished is detected later.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
    let connection = Arc::new(Connection {
        stream,
        phase: AtomicU8::new(IDLE),
        is_http2: AtomicBool::new(false),
        is_reading: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
        has_ended: AtomicBool::new(false),
        is_unflushed: AtomicBool::new(false),
        head: Mutex::default(),
        refused: OnceLock::new(),
    });
    let socket = Socket {
        connection: Arc::clone(&connection),
        preface: Some(0),
        refusal: Vec::new(),
    };
    (socket, connection)
}

impl Connection {
    /// Runs hyper's side of the connection until it ends, or a response broke off.
    ///
    /// In the latter case (see [`tasks`]), all data before the break is flushed first.
    pub(super) async fn run(&self, serving: impl Future) {
        let (broken_off, _) = AbortHandle::new_pair();
        let mut serving = pin!(serving);
        let is_broken_off = broken_off.clone();
        let running = poll_fn(|cx| {
            let is_over = serving.as_mut().poll(cx).is_ready();
            match is_over || (is_broken_off.is_aborted() && !self.is_unflushed.load(Relaxed)) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        tasks::within(broken_off, running).await;
    }

    /// Waits until the client has closed the connection and nothing reads the bytes before the end.
    ///
    /// While the kernels' buffers are full, a FIN waits unseen behind their contents; keep-alive detects the end once the other kernel
    /// has given up. A reset does not wait (see `manifest::cluster::reset_on_close`).
    pub(super) async fn abandoned(&self) {
        self.closed().await;
        while !self.has_ended.load(Relaxed) {
            let reads = self.reads.load(Relaxed);
            sleep(settings::ABANDONED).await;
            if reads == self.reads.load(Relaxed) && !self.is_reading.load(Relaxed) {
                return;
            }
        }
        // The reader has seen the end.
        pending().await
    }

    /// Waits until the client will send nothing more.
    ///
    /// Waits for urgent data, which is never sent: only this interest reports the end before unread bytes are read.
    #[cfg(target_os = "linux")]
    async fn closed(&self) {
        let ready = self.stream.ready(tokio::io::Interest::PRIORITY).await;
        if !ready.is_ok_and(|ready| ready.is_read_closed()) {
            pending().await
        }
    }

    /// On other systems only a reader sees the end.
    #[cfg(not(target_os = "linux"))]
    async fn closed(&self) {
        pending().await
    }

    /// Waits until a head that has begun is overdue.
    pub(super) async fn head_overdue(&self) {
        loop {
            sleep(settings::HEAD / 4).await;
            let began = *self.head();
            if began.is_some_and(|began| began.elapsed() >= settings::HEAD) {
                return;
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let ready = self.stream.poll_read_ready(cx);
            self.is_reading.store(ready.is_pending(), Relaxed);
            ready!(ready)?;
            match self.stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }

    /// Closes the write side.
    fn shut_down(&self) -> io::Result<()> {
        // tokio needs the only handle, but this one is shared.
        let handle = self.stream.as_fd().try_clone_to_owned()?;
        std::net::TcpStream::from(handle).shutdown(Shutdown::Write)
    }

    /// Records that a request has reached our service.
    pub(super) fn answering(&self) {
        *self.head() = None;
        self.phase.store(ANSWERING, Relaxed);
    }

    /// Records that the connection is no longer HTTP after the response.
    pub(super) fn switching(&self) {
        self.phase.store(SWITCHED, Relaxed);
    }

    /// Why hyper rejected a request before our service saw it.
    pub(super) fn refused(&self) -> Option<Unavailable> {
        self.refused.get().copied()
    }

    fn head(&self) -> MutexGuard<'_, Option<Instant>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Leaves the state of a connection that switches protocols.
        let _ = (self.0.phase).compare_exchange(ANSWERING, ANSWERED, Relaxed, Relaxed);
    }
}

impl Socket {
    fn note_read(&mut self, bytes: &[u8]) {
        let connection = &self.connection;
        if bytes.is_empty() {
            connection.has_ended.store(true, Relaxed);
            return;
        }
        connection.reads.fetch_add(1, Relaxed);
        let is_http2 = connection.is_http2.load(Relaxed);
        if !is_http2 && connection.phase.load(Relaxed) == IDLE {
            connection.head().get_or_insert_with(Instant::now);
        }
        let Some(seen) = self.preface else { return };
        let rest = &PREFACE[seen..];
        let common = rest.len().min(bytes.len());
        let seen = seen + common;
        self.preface = (rest[..common] == bytes[..common] && !rest.is_empty()).then_some(seen);
        if self.preface.is_some() && seen >= UNMISTAKABLE {
            connection.is_http2.store(true, Relaxed);
        }
        if self.preface.is_some() && seen == PREFACE.len() {
            *connection.head() = None;
        }
    }

    /// Is hyper writing a response of its own?
    fn is_hypers_own(&self) -> bool {
        let connection = &self.connection;
        connection.refused().is_some()
            || (connection.phase.load(Relaxed) == IDLE && !connection.is_http2.load(Relaxed))
    }

    /// Writes our response in place of hyper's, which is all of `theirs`.
    ///
    /// hyper closes the connection after it.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, theirs: &[u8]) -> Poll<io::Result<()>> {
        if self.connection.refused().is_none() {
            let reason = match theirs.get(9..12) {
                Some(b"431") => Unavailable::HeadersTooLarge,
                _ => Unavailable::Malformed,
            };
            self.refusal = refusal(reason);
            let _ = self.connection.refused.set(reason);
        }
        while !self.refusal.is_empty() {
            ready!(self.connection.stream.poll_write_ready(cx))?;
            match self.connection.stream.try_write(&self.refusal) {
                Ok(written) => drop(self.refusal.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.connection.is_unflushed.store(true, Relaxed);
        loop {
            ready!(self.connection.stream.poll_write_ready(cx))?;
            match write(&self.connection.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

/// An HTTP/1.1 response that closes the connection.
fn refusal(reason: Unavailable) -> Vec<u8> {
    let name = crate::marks::UNAVAILABLE;
    let reason = reason.as_str();
    format!("HTTP/1.1 503 Service Unavailable\r\n{name}: {reason}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(self.connection.poll_read(cx, buf));
        self.note_read(&buf.filled()[before..]);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_hypers_own() {
            ready!(self.poll_refuse(cx, buf))?;
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_write_with(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_hypers_own() {
            let first = bufs.first().map_or(&[][..], |buf| &**buf);
            ready!(self.poll_refuse(cx, first))?;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        self.poll_write_with(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = &self.connection;
        connection.is_unflushed.store(false, Relaxed);
        let _ = (connection.phase).compare_exchange(ANSWERED, IDLE, Relaxed, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.connection.shut_down())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let Some(runtime) = runtime
            .ok()
            .filter(|_| !self.connection.has_ended.load(Relaxed))
        {
            runtime.spawn(timeout(
                settings::LINGER,
                linger(Arc::clone(&self.connection)),
            ));
        }
    }
}

/// Closes the write side, and discards what the client still sends, until it has seen the end.
async fn linger(connection: Arc<Connection>) {
    let mut discarded = vec![0; 16 * 1024];
    let _ = connection.shut_down();
    while connection.stream.readable().await.is_ok() {
        match connection.stream.try_read(&mut discarded) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(1..) => {}
            _ => return,
        }
    }
}

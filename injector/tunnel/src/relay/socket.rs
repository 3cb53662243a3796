//! A data connection's socket: what hyper does not do for the client at its other end. Knows bytes only, nothing of tunnels.
//!
//! - It is closed in good order: with bytes unread a close is a reset, which overtakes the answer before it (RFC 9112 §9.6).
//! - A client that left is noticed although nothing reads the bytes that it left behind.
//! - What hyper answers by itself, before it has called our service, leaves with a mark of ours.
//! - A head that has begun must be complete soon.

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

/// The end of a data connection that hyper reads and writes.
pub(super) struct Socket {
    connection: Arc<Connection>,
    /// Bytes read of [`PREFACE`], while all of them are as it says.
    preface: Option<usize>,
    /// What is written in place of hyper's own answer.
    refusal: Vec<u8>,
}

/// What is known of a data connection beside hyper.
pub(super) struct Connection {
    stream: TcpStream,
    phase: AtomicU8,
    is_http2: AtomicBool,
    /// A reader waits for bytes, and so for their end.
    is_reading: AtomicBool,
    /// How often bytes were read.
    reads: AtomicUsize,
    /// The end was read.
    has_ended: AtomicBool,
    /// Something was written since the last flush.
    is_unflushed: AtomicBool,
    /// When the head began that is being read.
    head: Mutex<Option<Instant>>,
    refused: OnceLock<Unavailable>,
}

/// Goes with the body of an answer, and tells the connection that all of it is made.
pub(super) struct Answering(pub(super) Arc<Connection>);

/// No request is with our service: what hyper writes over HTTP/1.1 is an answer of its own.
const IDLE: u8 = 0;
/// A request is, or its answer is being made.
const ANSWERING: u8 = 1;
/// Its answer is made; perhaps not all of it is flushed.
const ANSWERED: u8 = 2;
/// What follows is not HTTP.
const SWITCHED: u8 = 3;

/// How HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// So much of it is no other request's beginning.
const UNMISTAKABLE: usize = 3;

/// A socket for hyper, and what its owner keeps of it.
pub(super) fn pair(stream: TcpStream) -> (Socket, Arc<Connection>) {
    let keep_alive = TcpKeepalive::new()
        .with_time(settings::KEEP_ALIVE)
        .with_interval(settings::KEEP_ALIVE);
    // Without it, a client that vanished is noticed later.
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
    /// Runs hyper's side of the connection until it ends, or until an answer broke off (see [`tasks`]) and all before that is flushed.
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

    /// Waits until the client has closed the connection and nothing reads what it sent before that.
    ///
    /// While the kernels' buffers are full, an end in good order waits behind what is in them, unseen; keep-alive finds out once the other kernel
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

    /// Waits until the client will send nothing more. Urgent data is never asked for: of all interests, that one alone hears of the end past unread bytes.
    #[cfg(target_os = "linux")]
    async fn closed(&self) {
        let ready = self.stream.ready(tokio::io::Interest::PRIORITY).await;
        if !ready.is_ok_and(|ready| ready.is_read_closed()) {
            pending().await
        }
    }

    /// Elsewhere only a reader sees the end.
    #[cfg(not(target_os = "linux"))]
    async fn closed(&self) {
        pending().await
    }

    /// Waits until a head that has begun should have been complete.
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

    /// Says that nothing more comes.
    fn shut_down(&self) -> io::Result<()> {
        // tokio asks for the only handle, which is shared here.
        let handle = self.stream.as_fd().try_clone_to_owned()?;
        std::net::TcpStream::from(handle).shutdown(Shutdown::Write)
    }

    /// A request has reached our service.
    pub(super) fn answering(&self) {
        *self.head() = None;
        self.phase.store(ANSWERING, Relaxed);
    }

    /// What follows the answer is not HTTP.
    pub(super) fn switching(&self) {
        self.phase.store(SWITCHED, Relaxed);
    }

    /// Why hyper refused a request that our service has not seen.
    pub(super) fn refused(&self) -> Option<Unavailable> {
        self.refused.get().copied()
    }

    fn head(&self) -> MutexGuard<'_, Option<Instant>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // One that switches protocols stays as it is.
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

    /// Whether hyper is writing an answer of its own.
    fn is_hypers_own(&self) -> bool {
        let connection = &self.connection;
        connection.refused().is_some()
            || (connection.phase.load(Relaxed) == IDLE && !connection.is_http2.load(Relaxed))
    }

    /// Writes our answer in place of hyper's, which is all of `theirs`; hyper closes the connection after it.
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

/// An answer over HTTP/1.1 after which the connection is closed.
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

/// Says that nothing more comes, and throws away what the client still sends, until it has seen that.
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

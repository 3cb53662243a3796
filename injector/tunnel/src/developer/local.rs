//! The developer's server: speaking its protocol. Knows nothing of the tunnel.
//!
//! A request has a fresh connection, or one on which an earlier response has ended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Body, headers, marks, settings, with_causes};

/// Port and protocol of the developer's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The port on 127.0.0.1, or on ::1 when nothing listens there.
    pub port: u16,
    /// The protocol on it.
    pub protocol: LocalProtocol,
}

/// The protocol of the developer's server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    Http2,
    /// HTTP/2 for gRPC, HTTP/1.1 for everything else.
    #[default]
    Auto,
}

impl LocalProtocol {
    /// Does a request go to the server over HTTP/2? A WebSocket never does.
    pub(super) fn is_http2(self, request: &HeaderMap) -> bool {
        match self {
            Self::Http1 => false,
            Self::Http2 => true,
            Self::Auto => headers::is_grpc(request),
        }
    }
}

/// Why the developer's server did not answer.
pub(super) enum NoAnswer {
    /// It certainly did not see the request.
    NeverProcessed,
    /// It may have seen the request.
    Broken(String),
    /// It answered with more headers than are read.
    TooLarge,
    /// The client aborted its request.
    Cancelled,
}

/// Why a port takes no connections, for people.
pub(super) fn refusal(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("port {port} refused the connection"),
        io::ErrorKind::TimedOut => format!("port {port} did not accept the connection in time"),
        _ => format!("port {port}: {error}"),
    }
}

/// A connection to the developer's server. Ends when this is dropped, whatever it waits for.
pub(super) struct Connection {
    /// Takes further requests, one after the other. None over HTTP/2.
    sender: Option<http1::SendRequest<Body>>,
    first: FirstBytes,
    opened: Instant,
    _task: Task,
}

impl Connection {
    /// Would it take another request now?
    pub(super) fn is_ready(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.is_ready())
    }

    /// The time since it was opened.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Sends another request. None if no byte of a response came: another connection may do better.
    pub(super) async fn send_again(
        mut self,
        mut request: Request<Body>,
    ) -> Option<Result<(Response<Incoming>, Self), NoAnswer>> {
        aim(&mut request, false);
        self.first.lock().clear();
        match self.sender.as_mut()?.try_send_request(request).await {
            Ok(response) => Some(Ok((response, self))),
            Err(_) if self.first.lock().is_empty() => None,
            Err(failed) => Some(Err(NoAnswer::from_unsent(failed))),
        }
    }
}

/// The task that runs a connection.
struct Task(JoinHandle<()>);

impl Task {
    fn run(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        // The request or the response reports the same error.
        Self(tokio::spawn(async { drop(connection.await) }))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to the developer's server that remembers the first bytes read.
///
/// hyper's errors do not include them.
///
/// A server may answer and then stop reading. So writes never fail; instead, reads end with the write error after all received bytes.
struct Overheard {
    stream: TcpStream,
    first: FirstBytes,
    /// The error of a failed write.
    failed: Option<io::ErrorKind>,
}

/// The first bytes of a response, as far as received.
#[derive(Clone, Default)]
struct FirstBytes(Arc<Mutex<Vec<u8>>>);

impl FirstBytes {
    /// Enough to distinguish TLS from HTTP.
    const COUNT: usize = 3;

    fn keep(&self, bytes: &[u8]) {
        let mut first = self.lock();
        let missing = Self::COUNT - first.len();
        first.extend(bytes.iter().take(missing));
    }

    /// Why the server did not answer, as text; `error` if the bytes say nothing more.
    fn explain(&self, port: u16, error: String) -> String {
        match self.lock().as_slice() {
            [] => format!(
                "port {port} closed the connection without an answer; does it speak plain HTTP, and is it no forwarded port without a target?"
            ),
            // An alert, in any version (RFC 8446 §5.1): a TLS server's reply to plain HTTP.
            [0x15, 0x03, ..] => format!(
                "port {port} speaks TLS, and the developer's server has to speak plain HTTP"
            ),
            _ => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overheard {
    fn written(&mut self, result: io::Result<usize>, size: usize) -> usize {
        result.unwrap_or_else(|error| {
            self.failed.get_or_insert(error.kind());
            size
        })
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        self.first.keep(read);
        match self.failed.filter(|_| read.is_empty()) {
            Some(error) => Poll::Ready(Err(error.into())),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(Ok(self.written(result, buf.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        let size = bufs.iter().map(|buf| buf.len()).sum();
        Poll::Ready(Ok(self.written(result, size)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Sends a request on a fresh connection.
///
/// The caller must hold the connection until the response body has ended.
pub(super) async fn send(
    stream: TcpStream,
    http2: bool,
    request: Request<Body>,
) -> Result<(Response<Incoming>, Connection), NoAnswer> {
    let port = stream.peer_addr().map_or(0, |address| address.port());
    let first = FirstBytes::default();
    let io = TokioIo::new(Overheard {
        stream,
        first: first.clone(),
        failed: None,
    });
    exchange(io, &first, http2, request)
        .await
        .map_err(|no_answer| match no_answer {
            NoAnswer::Broken(error) => NoAnswer::Broken(first.explain(port, error)),
            other => other,
        })
}

async fn exchange(
    io: TokioIo<Overheard>,
    first: &FirstBytes,
    http2: bool,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Connection), NoAnswer> {
    aim(&mut request, http2);
    let opened = Instant::now();
    let connection = |sender, task| Connection {
        sender,
        first: first.clone(),
        opened,
        _task: task,
    };
    if http2 {
        let (mut sender, task) = http2_client()
            .handshake(io)
            .await
            .map_err(|error| NoAnswer::from(&error))?;
        let task = Task::run(task);
        let answer = sender.try_send_request(request).await;
        return Ok((
            answer.map_err(NoAnswer::from_unsent)?,
            connection(None, task),
        ));
    }
    let (mut sender, task) = http1::Builder::new()
        .max_headers(settings::HEADER_FIELDS_READ)
        .max_buf_size(settings::H1_BUFFER)
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(io)
        .await
        .map_err(|error| NoAnswer::from(&error))?;
    let task = Task::run(task.with_upgrades());
    let answer = sender.try_send_request(request).await;
    Ok((
        answer.map_err(NoAnswer::from_unsent)?,
        connection(Some(sender), task),
    ))
}

/// Sets the target: only the path for HTTP/1.1, with the host in `:authority` for HTTP/2.
fn aim(request: &mut Request<Body>, http2: bool) {
    let scheme = request.uri().scheme().cloned();
    let path = request.uri().path_and_query().cloned();
    if !http2 {
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        return;
    }
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = scheme;
    parts.authority =
        Some(authority.unwrap_or_else(|| http::uri::Authority::from_static("localhost")));
    parts.path_and_query = path;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

fn http2_client() -> hyper::client::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .adaptive_window(false)
        .initial_stream_window_size(settings::STREAM_WINDOW)
        // One request per connection, so this limits nothing. With a small window, h2 accepts only few small messages ahead of their reader.
        .initial_connection_window_size(settings::WIDEST_WINDOW)
        .max_frame_size(settings::FRAME)
        .max_header_list_size(settings::HEADER_LIST_READ)
        .max_local_error_reset_streams(None)
        .max_send_buf_size(settings::SEND_BUFFER);
    builder
}

impl NoAnswer {
    fn from_unsent(mut failed: hyper::client::conn::TrySendError<Request<Body>>) -> Self {
        match failed.take_message() {
            Some(_) => Self::NeverProcessed,
            None => Self::from(failed.error()),
        }
    }
}

impl From<&hyper::Error> for NoAnswer {
    fn from(error: &hyper::Error) -> Self {
        if marks::was_never_processed(error) {
            Self::NeverProcessed
        } else if error.is_parse_too_large() {
            Self::TooLarge
        } else if error.is_user() {
            Self::Cancelled
        } else {
            Self::Broken(with_causes(error))
        }
    }
}

//! The program behind a port: the app in the cluster, or a developer's server.
//!
//! Both are alike, so that only the name shows which one responded.
//!
//! It counts executed requests by the header [`TEST_ID`] before it does anything else: a request counts as soon as its head was read, which is the
//! strictest reading of "never twice". The header [`TEST_DO`] then says what to do, so that tests can choose paths and bodies freely.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

use crate::answer::respond;
pub use crate::answer::{Do, GO, Seen, hex, sha256};
use crate::wait;

/// Header that names a request, to count its executions.
pub const TEST_ID: &str = "test-id";
/// Header that says what to do with a request: see [`Do`].
pub const TEST_DO: &str = "test-do";
/// Response header with the name of the app.
pub const ANSWERED_BY: &str = "answered-by";

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A running app. Ends, with all its connections, when dropped.
pub struct App {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

/// A callback for the name of each executed request.
type Note = Box<dyn Fn(&str) + Send + Sync>;

struct State {
    name: String,
    executed: Mutex<BTreeMap<String, usize>>,
    /// Replaces [`State::executed`] and [`State::seen`], which grow with every request.
    note: Option<Note>,
    finished: AtomicUsize,
    seen: Mutex<Vec<http::request::Parts>>,
    events: tokio::sync::broadcast::Sender<String>,
    connections: Mutex<Vec<AbortHandle>>,
}

impl App {
    /// Starts an app on a free port of 127.0.0.1.
    pub async fn start(name: &str) -> Self {
        Self::listen(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts an app on that address.
    pub async fn listen(name: &str, addr: SocketAddr) -> Self {
        Self::serve(name, addr, None).await
    }

    /// The same without a record of requests: calls `note` with the name of each executed one.
    ///
    /// For millions of requests.
    pub async fn listen_and_note(
        name: &str,
        addr: SocketAddr,
        note: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self::serve(name, addr, Some(Box::new(note))).await
    }

    async fn serve(name: &str, addr: SocketAddr, note: Option<Note>) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let state = Arc::new(State {
            name: name.to_owned(),
            executed: Mutex::default(),
            note,
            finished: AtomicUsize::new(0),
            seen: Mutex::default(),
            events: tokio::sync::broadcast::channel(256).0,
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self {
            addr,
            state,
            accepting,
        }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Executions of each named request.
    pub fn executed(&self) -> BTreeMap<String, usize> {
        self.state.executed.lock().expect("no panic").clone()
    }

    /// Executions of this request.
    pub fn executed_id(&self, id: &str) -> usize {
        self.executed().get(id).copied().unwrap_or_default()
    }

    /// All executions, named or not.
    pub fn total(&self) -> usize {
        self.state.seen.lock().expect("no panic").len()
    }

    /// How many responses were sent to their end, as far as this program knows.
    pub fn finished(&self) -> usize {
        self.state.finished.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<http::request::Parts> {
        self.state.seen.lock().expect("no panic").clone()
    }

    /// Sends a line to all listeners for events. Returns their number.
    pub fn say(&self, line: &str) -> usize {
        self.state.events.send(line.to_owned()).unwrap_or_default()
    }

    /// Stops listening and cuts every connection, as a killed process would.
    ///
    /// Once it returns, new connections are refused.
    pub async fn kill(&self) {
        wait::until("the app is dead", async || {
            self.cut();
            self.accepting.is_finished() && self.connections().iter().all(AbortHandle::is_finished)
        })
        .await;
    }

    fn cut(&self) {
        self.accepting.abort();
        for connection in self.connections().iter() {
            connection.abort();
        }
    }

    fn connections(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.state.connections.lock().expect("no panic")
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "App({} on {})", self.state.name, self.addr)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let connection = tokio::spawn(serve(stream, Arc::clone(&state)));
        let mut connections = state.connections.lock().expect("no panic");
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection.abort_handle());
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().max_headers(12_000).max_buf_size(1 << 20);
    builder
        .http2()
        .max_header_list_size(1 << 20)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(10_000);
    // An error is a peer that disconnected, which some tests provoke.
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, BoxError> {
    state.note(&request);
    let mut response = respond(request, &state.name, &state.events).await?;
    response
        .headers_mut()
        .insert(ANSWERED_BY, HeaderValue::from_str(&state.name)?);
    state.finished.fetch_add(1, Ordering::SeqCst);
    Ok(response)
}

impl State {
    fn note<B>(&self, request: &Request<B>) {
        if let Some(id) = request.headers().get(TEST_ID) {
            let id = id.to_str().expect("test-id is ASCII").to_owned();
            if let Some(note) = &self.note {
                return note(&id);
            }
            *self
                .executed
                .lock()
                .expect("no panic")
                .entry(id)
                .or_default() += 1;
        }
        if self.note.is_some() {
            return;
        }
        let mut parts = Request::new(()).into_parts().0;
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = request.headers().clone();
        self.seen.lock().expect("no panic").push(parts);
    }
}

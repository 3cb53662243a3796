//! The program behind a port: the app in the cluster, or a developer's server. One kind for both, so that only its name tells who answered.
//!
//! It counts what it executed, by the header [`TEST_ID`], before it does anything else: a request counts as executed as soon as its head was read, which is the
//! strictest reading of "never twice". What it then does is told by the header [`TEST_DO`], so that paths and bodies stay free for what a test is about.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::{grpc, websocket};

/// Names a request, so that its executions can be counted.
pub const TEST_ID: &str = "test-id";
/// Says what to do with a request: see [`Do`].
pub const TEST_DO: &str = "test-do";
/// On every answer: the name of the app that made it.
pub const ANSWERED_BY: &str = "answered-by";

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What a request asks for, besides being counted. Written into [`TEST_DO`] by `to_string`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Tells what it saw, as [`Seen`] in JSON, after reading the body.
    Tell,
    /// The same, after that many milliseconds.
    Sleep(u64),
    /// Answers with that status.
    Status(u16),
    /// Reads the whole request, then closes the connection without an answer.
    Die,
    /// Sends the body back as it comes, and the request's trailers with it.
    Echo,
    /// Sends that many bytes.
    Bytes(u64),
    /// Server-sent events, one for each line that [`App::say`] gets.
    Events,
    /// Three chunks and the trailer `test-trailer: NAME`.
    Trailers,
}

impl std::fmt::Display for Do {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tell => f.write_str("tell"),
            Self::Sleep(millis) => write!(f, "sleep={millis}"),
            Self::Status(status) => write!(f, "status={status}"),
            Self::Die => f.write_str("die"),
            Self::Echo => f.write_str("echo"),
            Self::Bytes(count) => write!(f, "bytes={count}"),
            Self::Events => f.write_str("events"),
            Self::Trailers => f.write_str("trailers"),
        }
    }
}

impl Do {
    fn of<B>(request: &Request<B>) -> Self {
        let text = request
            .headers()
            .get(TEST_DO)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("tell");
        let (verb, number) = text.split_once('=').unwrap_or((text, "0"));
        let number = number.parse().expect("a number in test-do");
        match verb {
            "tell" => Self::Tell,
            "sleep" => Self::Sleep(number),
            "status" => Self::Status(number.try_into().expect("a status")),
            "die" => Self::Die,
            "echo" => Self::Echo,
            "bytes" => Self::Bytes(number),
            "events" => Self::Events,
            "trailers" => Self::Trailers,
            other => panic!("test-do: {other} is nothing that the app can do"),
        }
    }
}

/// A running app. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct App {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    name: String,
    executed: Mutex<BTreeMap<String, usize>>,
    finished: AtomicUsize,
    seen: Mutex<Vec<http::request::Parts>>,
    events: tokio::sync::broadcast::Sender<String>,
    connections: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl App {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(name: &str) -> Self {
        Self::listen(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts one on that address.
    pub async fn listen(name: &str, addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let state = Arc::new(State {
            name: name.to_owned(),
            executed: Mutex::default(),
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

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How often each named request was executed here.
    pub fn executed(&self) -> BTreeMap<String, usize> {
        self.state.executed.lock().expect("no panic").clone()
    }

    /// How often that request was executed here.
    pub fn executed_id(&self, id: &str) -> usize {
        self.executed().get(id).copied().unwrap_or_default()
    }

    /// How many executions there were, named or not.
    pub fn total(&self) -> usize {
        self.state.seen.lock().expect("no panic").len()
    }

    /// How many requests were answered to their end, as far as this program can tell.
    pub fn finished(&self) -> usize {
        self.state.finished.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<http::request::Parts> {
        self.state.seen.lock().expect("no panic").clone()
    }

    /// Sends a line to all who listen for events; how many that are.
    pub fn say(&self, line: &str) -> usize {
        self.state.events.send(line.to_owned()).unwrap_or_default()
    }

    /// Stops listening and cuts every connection, as a killed process would.
    pub fn kill(&self) {
        self.accepting.abort();
        for connection in self.state.connections.lock().expect("no panic").drain(..) {
            connection.abort();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
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
    // An error here is a peer that went away, which is what some tests are about.
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

/// What an app tells about a request ([`Do::Tell`]).
#[derive(Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// `:path`.
    pub path: String,
    /// Bytes of the body.
    pub length: u64,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
}

impl Seen {
    fn to_json(&self) -> Bytes {
        serde_json::json!({"method": self.method, "path": self.path, "length": self.length, "sha256": self.sha256}).to_string().into()
    }

    /// Reads what [`Do::Tell`] answers.
    pub fn parse(json: &[u8]) -> Self {
        let value: serde_json::Value =
            serde_json::from_slice(json).expect("the app's own answer is JSON");
        let text = |field: &str| value[field].as_str().expect("a text").to_owned();
        Self {
            method: text("method"),
            path: text("path"),
            length: value["length"].as_u64().expect("a number"),
            sha256: text("sha256"),
        }
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, BoxError> {
    state.note(&request);
    let mut response = respond(request, &state).await?;
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
            *self
                .executed
                .lock()
                .expect("no panic")
                .entry(id)
                .or_default() += 1;
        }
        let mut parts = Request::new(()).into_parts().0;
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = request.headers().clone();
        self.seen.lock().expect("no panic").push(parts);
    }
}

async fn respond(
    request: Request<Incoming>,
    state: &Arc<State>,
) -> Result<Response<Body>, BoxError> {
    if websocket::is_asked_for(&request) {
        return Ok(websocket::echo(request)?.map(|body| body.map_err(never).boxed_unsync()));
    }
    if grpc::is_asked_for(&request) {
        return grpc::answer(request).await;
    }
    let what = Do::of(&request);
    let status = match what {
        Do::Status(status) => StatusCode::from_u16(status)?,
        _ => StatusCode::OK,
    };
    let body = match what {
        Do::Tell | Do::Status(_) => tell(request).await?,
        Do::Sleep(millis) => {
            let told = tell(request).await?;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            told
        }
        Do::Die => {
            request.into_body().collect().await?;
            return Err("asked to die".into());
        }
        Do::Echo => request.into_body().map_err(BoxError::from).boxed_unsync(),
        Do::Bytes(count) => zeros(count),
        Do::Events => return Ok(events(state)),
        Do::Trailers => trailers(&state.name)?,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

async fn tell(request: Request<Incoming>) -> Result<Body, BoxError> {
    let (parts, mut body) = request.into_parts();
    let (mut hash, mut length) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            hash.update(data);
            length += data.len() as u64;
        }
    }
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        length,
        sha256: hex(&hash.finalize()),
    };
    Ok(Full::new(seen.to_json()).map_err(never).boxed_unsync())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn never(never: Infallible) -> BoxError {
    match never {}
}

fn zeros(count: u64) -> Body {
    const CHUNK: Bytes = Bytes::from_static(&[0; 65_536]);
    let chunks = std::iter::successors(Some(count), |left| left.checked_sub(65_536))
        .map(|left| CHUNK.slice(..usize::try_from(left.min(65_536)).expect("at most 65 536")))
        .filter(|chunk| !chunk.is_empty())
        .map(|chunk| Ok(Frame::data(chunk)));
    StreamBody::new(tokio_stream::iter(chunks)).boxed_unsync()
}

fn events(state: &Arc<State>) -> Response<Body> {
    let (frames_tx, frames_rx) = tokio::sync::mpsc::channel(16); // broadcast → body: one frame per line
    let mut lines = state.events.subscribe();
    tokio::spawn(async move {
        while let Ok(line) = lines.recv().await {
            let frame = Frame::data(Bytes::from(format!("data: {line}\n\n")));
            if frames_tx.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    });
    let mut response =
        Response::new(StreamBody::new(ReceiverStream::new(frames_rx)).boxed_unsync());
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    response
}

fn trailers(name: &str) -> Result<Body, BoxError> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("test-trailer", HeaderValue::from_str(name)?);
    let frames = [
        Frame::data(Bytes::from_static(b"one ")),
        Frame::data(Bytes::from_static(b"two ")),
        Frame::data(Bytes::from_static(b"three")),
        Frame::trailers(trailers),
    ];
    Ok(StreamBody::new(tokio_stream::iter(frames.map(Ok))).boxed_unsync())
}

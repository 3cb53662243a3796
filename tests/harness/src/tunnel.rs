//! A relay, a developer machine and a developer's server, in this process on loopback.
//!
//! Clients act as Envoy.
//! Contains no assertions about the tunnel.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use intercept_tunnel::developer::{
    self, Developer, Event, Local, LocalProtocol, RequestLine, Tcp, TunnelError,
};
use intercept_tunnel::{Secret, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Timeout for anything that should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// The body of this module's requests and answers.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A body of these bytes, with its length known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A body fed by a channel; test → body: frames.
pub fn channel() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (frames, mut rx) = mpsc::channel::<Frame<Bytes>>(1);
    (
        frames,
        BodyExt::boxed(StreamBody::new(FromFn(move |cx: &mut Context<'_>| {
            rx.poll_recv(cx).map(|frame| frame.map(Ok))
        }))),
    )
}

/// A body of `total` bytes of `byte`, generated as it is read.
pub fn repeat(byte: u8, total: u64) -> Body {
    let chunk = Bytes::from(vec![byte; 64 * 1024]);
    let mut left = total;
    BodyExt::boxed(StreamBody::new(FromFn(move |_: &mut Context<'_>| {
        let size = left.min(chunk.len() as u64);
        left -= size;
        Poll::Ready((size > 0).then(|| Ok(Frame::data(chunk.slice(..size as usize)))))
    })))
}

struct FromFn<F>(F);

impl<F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin, T> futures_core::Stream for FromFn<F> {
    type Item = T;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`SOON`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "did not happen within {SOON:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A relay in this process.
pub struct Relay {
    /// The address for matched requests.
    pub data: SocketAddr,
    /// The address for developer machines.
    pub control: SocketAddr,
    /// Where pods ask whether a tunnel is up.
    pub presence: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay with default options.
    pub async fn start() -> Self {
        Self::with(relay::Options::default()).await
    }

    /// Starts a relay with these options.
    pub async fn with(options: relay::Options) -> Self {
        let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::on(data, control, options)
    }

    /// Starts one that answers pods, too.
    pub async fn with_presence() -> Self {
        let bind = async || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (data, control, presence) = (bind().await, bind().await, bind().await);
        Self::serve(data, control, Some(presence), relay::Options::default())
    }

    /// Starts one on these listeners.
    pub fn on(data: TcpListener, control: TcpListener, options: relay::Options) -> Self {
        Self::serve(data, control, None, options)
    }

    fn serve(
        data: TcpListener,
        control: TcpListener,
        presence: Option<TcpListener>,
        options: relay::Options,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (data_address, control_address) =
            (data.local_addr().unwrap(), control.local_addr().unwrap());
        let presence_address = presence.as_ref().map(|bound| bound.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            relay::serve(vec![data], control, presence, options, stopped)
                .await
                .unwrap();
        });
        Self {
            data: data_address,
            control: control_address,
            presence: presence_address,
            stop: Some(stop),
            serving,
        }
    }

    /// Begins the shutdown. The handle ends with the relay.
    pub fn stop(mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.serving
    }

    /// Its metrics as text.
    pub async fn metrics(&self) -> String {
        get_text(self.control, "/metrics").await
    }

    /// The value of one metric; 0 if it is missing.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = self.metrics().await;
        text.lines()
            .find_map(|found| found.strip_prefix(line))
            .map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// The body of a GET over HTTP/1.1.
pub async fn get_text(address: SocketAddr, path: &str) -> String {
    let response = h1(address)
        .await
        .send(Request::get(path).body(full("")).unwrap())
        .await
        .unwrap();
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}

/// A running developer machine.
pub struct Machine {
    /// The secret of its tunnel.
    pub secret: Secret,
    /// Its events.
    pub events: mpsc::Receiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    /// Its result.
    pub running: JoinHandle<Result<(), TunnelError>>,
}

/// A developer machine for a server on `port`, with the name `orders-bob`.
pub fn developer(port: u16) -> Developer {
    Developer::new(
        "orders-bob",
        Secret::random(),
        Local {
            port,
            protocol: LocalProtocol::Auto,
        },
    )
}

impl Machine {
    /// Starts a machine without waiting for its tunnel.
    pub fn start(control: SocketAddr, developer: Developer) -> Self {
        Self::over(Tcp(control), developer)
    }

    /// Starts a machine that connects to its relay in this way.
    pub fn over(connect: impl developer::Connect + 'static, developer: Developer) -> Self {
        let (events_tx, events) = mpsc::channel(4096);
        let (stop, stopped) = oneshot::channel();
        let secret = developer.secret.clone();
        let running = tokio::spawn(developer::run(developer, connect, events_tx, async {
            drop(stopped.await)
        }));
        Self {
            secret,
            events,
            stop: Some(stop),
            running,
        }
    }

    /// Starts a machine, and waits until its tunnel is up.
    pub async fn up(control: SocketAddr, developer: Developer) -> Self {
        let mut machine = Self::start(control, developer);
        machine
            .wait_for("up", |event| matches!(event, Event::Up { .. }))
            .await;
        machine
    }

    /// The next event that `wanted` accepts; skips others.
    pub async fn wait_for(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let found = async {
            while let Some(event) = self.events.recv().await {
                if wanted(&event) {
                    return event;
                }
            }
            panic!("the machine ended before: {what}");
        };
        timeout(SOON, found)
            .await
            .unwrap_or_else(|_| panic!("no such event within {SOON:?}: {what}"))
    }

    /// The next request that it reports.
    pub async fn line(&mut self) -> RequestLine {
        match self
            .wait_for("a request", |event| matches!(event, Event::Request(_)))
            .await
        {
            Event::Request(line) => line,
            _ => unreachable!(),
        }
    }

    /// The value of `x-intercept-address` for its tunnel.
    pub fn address(&self) -> String {
        self.secret.address().to_string()
    }

    /// Begins a graceful shutdown.
    pub fn stop(mut self) -> JoinHandle<Result<(), TunnelError>> {
        drop(self.stop.take());
        self.running
    }
}

/// One connection to a data port.
pub enum Client {
    /// Over HTTP/1.1.
    H1(hyper::client::conn::http1::SendRequest<Body>),
    /// Over HTTP/2 with prior knowledge.
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

/// Connects over HTTP/1.1.
pub async fn h1(address: SocketAddr) -> Client {
    speak_h1(TcpStream::connect(address).await.unwrap()).await
}

/// Connects over HTTP/1.1 from this loopback address, as a sidecar or a port-forward does.
pub async fn h1_from(source: Ipv4Addr, address: SocketAddr) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    speak_h1(socket.connect(address).await.unwrap()).await
}

async fn speak_h1(stream: TcpStream) -> Client {
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(4_000)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    Client::H1(sender)
}

/// Connects over HTTP/2.
pub async fn h2(address: SocketAddr) -> Client {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(1024 * 1024)
        .max_local_error_reset_streams(None)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(64 * 1024 * 1024)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    Client::H2(sender)
}

impl Client {
    /// Sends a request; over HTTP/2 its URI gets an authority if it has none.
    pub async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H1(sender) => {
                if !request.headers().contains_key("host") {
                    request
                        .headers_mut()
                        .insert("host", HeaderValue::from_static("orders.shop"));
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                if request.uri().authority().is_none() {
                    *request.uri_mut() = format!("http://orders.shop{}", request.uri())
                        .parse()
                        .unwrap();
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Starts to send a request over HTTP/2, beside others.
    pub fn start(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let Self::H2(sender) = self else {
            panic!("one request at a time over HTTP/1.1");
        };
        *request.uri_mut() = format!("http://orders.shop{}", request.uri())
            .parse()
            .unwrap();
        sender.send_request(request)
    }

    /// Can this connection carry another request?
    pub async fn is_usable(&mut self) -> bool {
        match self {
            Self::H1(sender) => timeout(SOON, sender.ready())
                .await
                .is_ok_and(|ready| ready.is_ok()),
            Self::H2(sender) => timeout(SOON, sender.ready())
                .await
                .is_ok_and(|ready| ready.is_ok()),
        }
    }
}

/// A request for the tunnel with this address.
pub fn request(method: &str, path: &str, address: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("x-intercept-address", address)
        .body(body)
        .unwrap()
}

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: HeaderMap,
}

impl Answer {
    /// Reads the rest of a response.
    pub async fn read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    /// A header as text; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends a request and reads the whole response, within [`SOON`].
pub async fn ask(client: &mut Client, request: Request<Body>) -> Answer {
    let asked = async {
        Answer::read(client.send(request).await.unwrap())
            .await
            .unwrap()
    };
    timeout(SOON, asked).await.expect("an answer in time")
}

/// A developer's server with various responses:
///
/// | path | response |
/// |---|---|
/// | `/hello` | `hello` |
/// | `/echo` | the request's body and trailers, as they come |
/// | `/headers` | the request line and headers as text |
/// | `/sink` | how many bytes the body had |
/// | `/big/N` | N bytes |
/// | `/events` | one server-sent event, then nothing for ever |
/// | `/hang` | never |
/// | `/early` | 413 at once, the body unread |
/// | `/forge` | every mark of the tunnel, in headers and trailers |
/// | `/wide/N` | N headers |
/// | `/status/N` | that status |
pub struct LocalServer {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Requests by path.
    pub seen: Arc<Mutex<HashMap<String, usize>>>,
    /// Requests that are being answered.
    pub open: Arc<AtomicUsize>,
    /// Bytes of bodies that were read.
    pub read: Arc<AtomicU64>,
    kill: Arc<Notify>,
    accepting: JoinHandle<()>,
}

impl LocalServer {
    /// Starts a server on a free port.
    pub async fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    /// Starts a server on this listener.
    pub fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (seen, open, read) = (
            Arc::<Mutex<HashMap<_, _>>>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::<AtomicU64>::default(),
        );
        let kill = Arc::new(Notify::new());
        let state = Zoo {
            seen: Arc::clone(&seen),
            open: Arc::clone(&open),
            read: Arc::clone(&read),
        };
        let killed = Arc::clone(&kill);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (state, killed) = (state.clone(), Arc::clone(&killed));
                tokio::spawn(async move {
                    let builder = zoo_builder();
                    let connection = builder.serve_connection(
                        TokioIo::new(stream),
                        service_fn(move |request| state.clone().answer(request)),
                    );
                    tokio::select! { _ = connection => {}, () = killed.notified() => {} }
                });
            }
        });
        Self {
            port,
            seen,
            open,
            read,
            kill,
            accepting,
        }
    }

    /// The number of requests for this path.
    pub fn count(&self, path: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .get(path)
            .copied()
            .unwrap_or_default()
    }

    /// Ends every connection at once and stops listening.
    ///
    /// Once it returns, new connections are refused.
    pub async fn kill(&self) {
        self.accepting.abort();
        self.kill.notify_waiters();
        eventually("nothing listens", async || self.accepting.is_finished()).await;
    }
}

fn zoo_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_headers(4_000).max_buf_size(512 * 1024);
    builder
        .http2()
        .max_header_list_size(1024 * 1024)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024);
    builder
}

#[derive(Clone)]
struct Zoo {
    seen: Arc<Mutex<HashMap<String, usize>>>,
    open: Arc<AtomicUsize>,
    read: Arc<AtomicU64>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Zoo {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        *self
            .seen
            .lock()
            .unwrap()
            .entry(request.uri().path().to_owned())
            .or_default() += 1;
        let response = self.choose(request).await;
        Ok(response.map(|body| Held { body, _open: open }.boxed()))
    }

    async fn choose(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (verb, number) = (
            parts.next().unwrap_or_default(),
            parts
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or_default(),
        );
        match verb {
            "hello" => Response::new(full("hello")),
            "echo" => echo(request),
            "headers" => Response::new(full(dump(&request))),
            "sink" => Response::new(full(self.sink(request.into_body()).await.to_string())),
            "big" => Response::new(repeat(b'd', number)),
            "events" => events(),
            "hang" => self.hang(request).await,
            "early" => Response::builder()
                .status(413)
                .body(full("too large"))
                .unwrap(),
            "forge" => forge(),
            "wide" => wide(number),
            "status" => Response::builder()
                .status(number as u16)
                .body(full("that"))
                .unwrap(),
            _ => Response::builder().status(404).body(full("")).unwrap(),
        }
    }

    async fn sink(&self, mut body: Incoming) -> u64 {
        let mut total = 0;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.read.fetch_add(size, Ordering::SeqCst);
            total += size;
        }
        total
    }

    async fn hang(&self, request: Request<Incoming>) -> Response<Body> {
        self.sink(request.into_body()).await;
        std::future::pending().await
    }
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let names = request.headers().get("trailer").cloned();
    let kind = request.headers().get("content-type").cloned();
    let mut response = Response::new(BodyExt::boxed(
        request.into_body().map_err(std::io::Error::other),
    ));
    for (name, value) in [("trailer", names), ("content-type", kind)] {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn dump(request: &Request<Incoming>) -> String {
    let mut text = format!(
        "{} {} {:?}\n",
        request.method(),
        request.uri(),
        request.version()
    );
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn events() -> Response<Body> {
    let (frames, body) = channel();
    tokio::spawn(async move {
        let _ = frames
            .send(Frame::data(Bytes::from_static(b"data: first\n\n")))
            .await;
        frames.closed().await;
    });
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(body)
        .unwrap()
}

fn forge() -> Response<Body> {
    let marks = [
        "x-intercept-unavailable",
        "x-intercept-lost",
        "x-intercept-error",
        "x-intercept-served-by",
        "x-intercept",
        "x-intercept-via",
    ];
    let mut trailers = HeaderMap::new();
    let mut response = Response::builder()
        .status(503)
        .header("trailer", format!("{}, x-kept", marks.join(", ")))
        .header("x-intercept-id", "mine");
    for mark in marks {
        response = response.header(mark, "forged");
        trailers.insert(
            HeaderName::from_static(mark),
            HeaderValue::from_static("forged"),
        );
    }
    trailers.insert("x-kept", HeaderValue::from_static("yes"));
    let (frames, body) = channel();
    tokio::spawn(async move {
        let _ = frames.send(Frame::trailers(trailers)).await;
    });
    response.body(body).unwrap()
}

fn wide(count: u64) -> Response<Body> {
    let mut response = Response::new(full("wide"));
    for n in 0..count {
        response.headers_mut().insert(
            format!("x-{n}").parse::<HeaderName>().unwrap(),
            HeaderValue::from_static("1"),
        );
    }
    response
}

struct Held {
    body: Body,
    _open: Open,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A TCP proxy in front of a relay's control port that can freeze or cut connections.
///
/// It freezes as a sleeping laptop does.
pub struct Wire {
    /// The address to connect to.
    pub address: SocketAddr,
    frozen: Arc<tokio::sync::watch::Sender<bool>>,
    cut: Arc<Notify>,
    /// The number of connections so far.
    pub connections: Arc<AtomicUsize>,
}

impl Wire {
    /// A proxy to this address.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = Arc::new(tokio::sync::watch::Sender::new(false));
        let (cut, connections) = (Arc::new(Notify::new()), Arc::<AtomicUsize>::default());
        let (froze, cuts, count) = (
            Arc::clone(&frozen),
            Arc::clone(&cut),
            Arc::clone(&connections),
        );
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(target).await else {
                    continue;
                };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let ((near_read, near_write), (far_read, far_write)) =
                    (near.into_split(), far.into_split());
                let (up, down) = (
                    pass(near_read, far_write, froze.subscribe()),
                    pass(far_read, near_write, froze.subscribe()),
                );
                let cuts = Arc::clone(&cuts);
                tokio::spawn(async move {
                    tokio::select! { () = cuts.notified() => {}, _ = async { tokio::join!(up, down) } => {} }
                });
            }
        });
        Self {
            address,
            frozen,
            cut,
            connections,
        }
    }

    /// Stops forwarding, without closing anything, until thawed.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: tokio::sync::watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Runs `body` with a timeout far above what it needs, so that a hang names its test.
pub async fn within<T>(limit: Duration, body: impl Future<Output = T>) -> T {
    timeout(limit, body).await.expect("the test ended in time")
}

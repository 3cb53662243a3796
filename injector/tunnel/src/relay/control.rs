//! The relay's control port: opens tunnels, and reports their state, health and metrics.
//!
//! It is reached by Kubernetes port-forward only, so that Kubernetes decides on access. Knows nothing of the data side. The presence port, which pods reach, tells them only whether a tunnel is up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Shared;
use super::metrics::TunnelMeter;
use super::registry::Tunnel;
use crate::beat::Frames;
use crate::liveness::Liveness;
use crate::protocol::{self, Hello, Refusal, Welcome};
use crate::pulse::{self, Signal};
use crate::stream::Purpose;
use crate::tasks::Tasks;
use crate::{Address, Body, empty_body, settings, text_body};

/// Answers one request on the control port.
pub(super) async fn handle(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.method() != Method::GET {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        protocol::PATH => open(&shared, &mut request).unwrap_or_else(|refusal| refusal.response()),
        "/healthz" => typed("text/plain", "ok\n".to_owned()),
        "/metrics" => typed(
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            shared.metrics.text(),
        ),
        _ => tunnel(&path, |address| describe(&shared, address)),
    })
}

/// Answers one request on the presence port, which other pods reach: whether a tunnel is up, and its name.
pub(super) async fn handle_presence(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.method() != Method::GET {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    Ok(match request.uri().path() {
        "/healthz" => typed("text/plain", "ok\n".to_owned()),
        path => tunnel(path, |address| match shared.registry.find(address) {
            None => serde_json::json!({"up": false}).to_string(),
            Some(tunnel) => serde_json::json!({"up": true, "name": tunnel.name}).to_string(),
        }),
    })
}

/// `/tunnels/ADDRESS`, as JSON.
fn tunnel(path: &str, describe: impl FnOnce(&Address) -> String) -> Response<Body> {
    let address = path.strip_prefix("/tunnels/");
    match address.map(|address| Address::parse(address.as_bytes())) {
        Some(Some(address)) => typed("application/json", describe(&address)),
        Some(None) => status(StatusCode::BAD_REQUEST),
        None => status(StatusCode::NOT_FOUND),
    }
}

/// The state of a tunnel, as JSON. Knowing the address is enough to see it.
fn describe(shared: &Shared, address: &Address) -> String {
    match shared.registry.find(address) {
        None => serde_json::json!({"up": false, "under_way": shared.registry.under_way(address)}),
        Some(tunnel) => {
            let since = tunnel.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            serde_json::json!({"up": true, "since": since, "name": tunnel.name, "requests": tunnel.requests(), "under_way": shared.registry.under_way(address)})
        }
    }
    .to_string()
}

fn open(shared: &Arc<Shared>, request: &mut Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let hello = Hello::read(request.headers())?;
    if shared.is_leaving() {
        return Err(Refusal::for_now("the relay is shutting down"));
    }
    shared.registry.admit(&hello)?;
    let place = Arc::clone(&shared.places)
        .try_acquire_owned()
        .map_err(|_| Refusal::full("the relay has as many tunnels as it takes"))?;
    let welcome = Welcome {
        relay_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    tokio::spawn(run(
        Arc::clone(shared),
        hello,
        hyper::upgrade::on(request),
        place,
    ));
    Ok(welcome.response())
}

/// Runs one tunnel. Any error just ends it: the developer machine reconnects.
async fn run(
    shared: Arc<Shared>,
    hello: Hello,
    upgrade: OnUpgrade,
    place: OwnedSemaphorePermit,
) -> Option<()> {
    let upgraded = upgrade.await.ok()?;
    let is_suspect = Arc::<AtomicBool>::default();
    let meter = TunnelMeter {
        metrics: shared.metrics.clone(),
        is_suspect: Arc::clone(&is_suspect),
        _held: place,
    };
    let io = Liveness::new(
        TokioIo::new(upgraded),
        Frames::of_client(),
        shared.tempo,
        meter,
    );
    let io = TokioIo::new(io);
    let (mut sender, mut connection) = client().handshake::<_, Body>(io).await.ok()?;

    let (signals, beats) = pulse::pulse();
    let pulse = tokio::select! {
        _ = &mut connection => return None,
        pulse = timeout(settings::OPENING, sender.send_request(pulse_request(beats))) => pulse.ok()?.ok().filter(|response| response.status() == StatusCode::OK)?,
    };
    // The first response also brings the peer's settings, with its limit of streams.
    let peer_streams = connection.current_max_send_streams();
    let address = hello.secret.address();
    let tunnel = Tunnel::new(
        hello,
        sender,
        peer_streams,
        shared.memory.share(),
        signals,
        is_suspect,
        shared.tempo.requests,
    );
    let connection = tunnel.drive(connection);
    shared.registry.insert(address.clone(), Arc::clone(&tunnel));
    tunnel.signal(Signal::Registered);
    if shared.is_leaving() {
        tunnel.signal(Signal::RelayLeaving);
    }
    let mut ended = shared.ended.subscribe();
    tokio::select! {
        _ = connection => {}
        _ = ended.wait_for(|ended| *ended) => {}
        // The developer machine takes no new requests; running ones continue.
        () = pulse::listen(pulse.into_body(), async |_| ()) => {}
    }
    shared.registry.remove(&address, &tunnel);
    Some(())
}

fn pulse_request(beats: pulse::Pulse) -> Request<Body> {
    let mut request = Request::new(http_body_util::BodyExt::boxed_unsync(beats));
    *request.uri_mut() = Purpose::Pulse.uri(&http::Uri::default());
    request
}

fn client() -> hyper::client::conn::http2::Builder<Tasks> {
    let mut builder = hyper::client::conn::http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_connection_window_size(settings::CONNECTION_WINDOW)
        .initial_stream_window_size(settings::STREAM_WINDOW)
        .initial_max_send_streams(settings::STREAMS as usize)
        .max_frame_size(settings::FRAME)
        .max_header_list_size(settings::HEADER_LIST_READ)
        .max_send_buf_size(settings::SEND_BUFFER)
        .max_local_error_reset_streams(None);
    builder
}

fn typed(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(text_body(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = status;
    response
}

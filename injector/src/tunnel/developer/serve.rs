//! One request from the relay: to the developer's server and back. Owns the answer's marks on this end, and the line that is told about it.
//! Must not know how the tunnel is kept.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::hold::Held;
use super::local::{self, Local, NoAnswer};
use super::{Event, RequestLine, RequestOutcome, switch};
use crate::tunnel::marks::{self, Unavailable};
use crate::tunnel::pulse::{self, Signal};
use crate::tunnel::{Body, BoxError, headers};

/// What every request of one tunnel needs.
pub(super) struct Serving {
    pub(super) local: Local,
    /// The intercept's name, as the answers carry it.
    pub(super) served_by: HeaderValue,
    pub(super) held: Held,
    /// The program ends: dial nothing new.
    pub(super) leaving: Arc<AtomicBool>,
    /// requests → whoever shows them.
    pub(super) events: mpsc::Sender<Event>,
    /// the relay → whoever keeps the tunnel.
    pub(super) signals: mpsc::Sender<Signal>,
    /// Ends this end's half of the pulse when dropped, which tells the relay to send nothing new.
    pub(super) pulse: std::sync::Mutex<Option<mpsc::Sender<Signal>>>,
}

/// Answers one stream of the tunnel.
pub(super) async fn handle(
    serving: Arc<Serving>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let internal = request
        .headers()
        .get(headers::INTERNAL)
        .map(|question| question == pulse::OPEN);
    Ok(match internal {
        Some(true) => open_pulse(&serving, request),
        Some(false) => hold(&serving).await,
        None => {
            let line = Line::start(&serving, &request);
            let response = answer(&serving, request).await;
            line.end(&response);
            response
        }
    })
}

fn open_pulse(serving: &Arc<Serving>, request: Request<Incoming>) -> Response<Body> {
    let (keep, beats) = pulse::pulse();
    *serving
        .pulse
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(keep);
    let signals = serving.signals.clone();
    tokio::spawn(pulse::listen(request.into_body(), async move |signal| {
        let _ = signals.send(signal).await;
    }));
    Response::new(beats.boxed_unsync())
}

async fn hold(serving: &Serving) -> Response<Body> {
    match connect(serving).await {
        Ok(connection) => serving.held.hold(connection),
        Err(reason) => reason.answer(),
    }
}

async fn connect(serving: &Serving) -> Result<TcpStream, Unavailable> {
    if serving.leaving.load(Ordering::Relaxed) {
        return Err(Unavailable::Leaving);
    }
    local::connect(serving.local.port)
        .await
        .map_err(|_| Unavailable::NothingListens)
}

async fn answer(serving: &Serving, mut request: Request<Incoming>) -> Response<Body> {
    let connection = match serving.held.take(request.headers()) {
        Some(connection) => connection,
        None => match connect(serving).await {
            Ok(connection) => connection,
            Err(reason) => return reason.answer(),
        },
    };
    headers::remove_hop_by_hop(request.headers_mut());
    headers::remove_ours(request.headers_mut());
    let grpc = headers::is_grpc(request.headers());
    let switching = request.method() == Method::CONNECT;
    let http2 = serving
        .local
        .protocol
        .is_http2(request.headers(), switching);
    let answered = match switching {
        true => switch::through(connection, request).await,
        false => local::send(connection, http2, request.map(into_body))
            .await
            .map(|response| pass_on(response, grpc)),
    };
    mark(answered, grpc, &serving.served_by)
}

fn into_body(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// Everything but "nobody took it" says whose machine this was, our own errors included.
fn mark(
    answered: Result<Response<Body>, NoAnswer>,
    grpc: bool,
    served_by: &HeaderValue,
) -> Response<Body> {
    let mut response = match answered {
        Ok(response) => response,
        Err(NoAnswer::NeverProcessed) => return Unavailable::Refused.answer(),
        Err(NoAnswer::Broken(reason)) => {
            marks::lost(&format!("the developer's server broke off: {reason}"), grpc)
        }
    };
    response
        .headers_mut()
        .insert(marks::SERVED_BY, served_by.clone());
    response
}

/// An answer of the developer's server, without what only we may say.
pub(super) fn pass_on(response: Response<Incoming>, grpc: bool) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if !headers::fits(&parts.headers) {
        return marks::failed(
            "the header list of the developer's server is larger than the tunnel passes",
            grpc,
        );
    }
    headers::remove_hop_by_hop(&mut parts.headers);
    headers::remove_ours(&mut parts.headers);
    parts.version = http::Version::HTTP_2;
    Response::from_parts(parts, Answer(body).boxed_unsync())
}

/// The body of an answer; its trailers are cleaned as its headers were.
struct Answer(Incoming);

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let cleaned = |mut frame: Frame<Bytes>| {
            if let Some(trailers) = frame.trailers_mut() {
                headers::remove_ours(trailers);
            }
            frame
        };
        Pin::new(&mut self.0)
            .poll_frame(cx)
            .map_ok(cleaned)
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The line about a request; one that is dropped before its answer was cancelled by its client.
struct Line<'a> {
    serving: &'a Serving,
    method: Method,
    path: String,
    started: Instant,
    ended: bool,
}

impl<'a> Line<'a> {
    fn start(serving: &'a Serving, request: &Request<Incoming>) -> Self {
        // A WebSocket comes as CONNECT only inside the tunnel.
        let method = if request.method() == Method::CONNECT {
            Method::GET
        } else {
            request.method().clone()
        };
        let path = request
            .uri()
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string);
        Self {
            serving,
            method,
            path,
            started: Instant::now(),
            ended: false,
        }
    }

    fn end(mut self, response: &Response<Body>) {
        self.ended = true;
        let status = response
            .headers()
            .get(headers::STATUS)
            .and_then(|status| http::StatusCode::from_bytes(status.as_bytes()).ok());
        let status = if response.headers().contains_key(headers::SWITCHED) {
            Some(http::StatusCode::SWITCHING_PROTOCOLS)
        } else {
            status
        };
        let status = status.unwrap_or(response.status()).as_u16();
        match Unavailable::on(response.headers()) {
            Some(reason) => self.tell(None, RequestOutcome::Unavailable(reason)),
            None => match marks::lost_reason(response.headers()) {
                Some(reason) => self.tell(Some(status), RequestOutcome::Lost(reason)),
                None => self.tell(Some(status), RequestOutcome::Answered),
            },
        }
    }

    /// Never waits: a terminal that stands still must not hold up requests.
    fn tell(&self, status: Option<u16>, outcome: RequestOutcome) {
        let (method, path) = (self.method.clone(), self.path.clone());
        let duration: Duration = self.started.elapsed();
        let _ = self.serving.events.try_send(Event::Request(RequestLine {
            method,
            path,
            status,
            duration,
            outcome,
        }));
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(None, RequestOutcome::Cancelled);
        }
    }
}

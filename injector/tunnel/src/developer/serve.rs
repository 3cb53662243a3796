//! Passes one request from the relay to the developer's server, and its response back.
//!
//! Owns the response's marks on this end.
//! Knows nothing of how the tunnel is kept.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::body::{Answer, Upload};
use super::line::Line;
use super::local::{self, Connection, NoAnswer};
use super::pool::Pool;
use super::serving::Serving;
use super::switch::{self, Switch};
use crate::marks::{self, Unavailable};
use crate::pulse;
use crate::stream::{Notes, Purpose};
use crate::{Body, empty_body, headers};

/// Answers one stream of the tunnel.
pub(super) async fn handle(
    serving: Arc<Serving>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match Purpose::of(request.uri()) {
        Some(Purpose::Pulse) => open_pulse(&serving, request),
        Some(Purpose::Hold) => match connect(&serving).await {
            Ok(connection) => serving.held.hold(connection),
            Err((mark, _)) => mark.answer(),
        },
        Some(Purpose::Switch) => {
            let counted = serving.under_way.enter();
            counted.answer(answer(&serving, request, None, false, true).await)
        }
        Some(Purpose::Request { held, chunked }) => {
            let counted = serving.under_way.enter();
            counted.answer(answer(&serving, request, held, chunked, false).await)
        }
        None => Unavailable::Other.answer(),
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

/// May this request go to the developer's server?
///
/// An error has the reason for Envoy and the text for users.
fn admit(serving: &Serving) -> Result<(), (Unavailable, String)> {
    if serving.leaving.load(Ordering::Relaxed) {
        let reason = "this machine is leaving".to_owned();
        return Err((Unavailable::Leaving, reason));
    }
    if serving.share.is_spent() {
        let reason = "too much is waiting for the developer's server to read it".to_owned();
        return Err((Unavailable::Busy, reason));
    }
    Ok(())
}

/// Connects to the developer's server; errors as for [`admit`].
async fn connect(serving: &Serving) -> Result<TcpStream, (Unavailable, String)> {
    admit(serving)?;
    let port = serving.local.port;
    let connected = serving.dial.connect(port).await;
    connected.map_err(|error| (Unavailable::NothingListens, local::refusal(port, &error)))
}

async fn answer(
    serving: &Arc<Serving>,
    mut request: Request<Incoming>,
    held: Option<u64>,
    chunked: bool,
    switches: bool,
) -> Response<Body> {
    let mut line = Line::start(serving, &request);
    headers::remove_hop_by_hop(request.headers_mut());
    headers::remove_ours_from_request(request.headers_mut());
    request
        .headers_mut()
        .append(headers::VIA, serving.name.clone());
    let grpc = headers::is_grpc(request.headers());
    let http2 = !switches && serving.local.protocol.is_http2(request.headers());
    let repeatable = !(switches || http2 || chunked)
        && headers::is_safe(request.method())
        && request.body().is_end_stream();
    if repeatable
        && admit(serving).is_ok()
        && let Some(answered) = send_again(serving, &request).await
    {
        return pass_on_or_explain(serving, answered, repeatable, line, grpc);
    }
    let connection = match held.and_then(|id| serving.held.take(id)) {
        Some(connection) => connection,
        None => match connect(serving).await {
            Ok(connection) => connection,
            Err((mark, reason)) => {
                line.fell_back(reason);
                return mark.answer();
            }
        },
    };
    let answered = if switches {
        let request = request.map(|body| serving.share.pin(body));
        match switch::through(connection, request).await {
            Ok(Switch::Done(answer)) => {
                line.answered(StatusCode::SWITCHING_PROTOCOLS);
                return answer;
            }
            Ok(Switch::Declined(response, connection)) => Ok((response, connection)),
            Err(no_answer) => Err(no_answer),
        }
    } else {
        if chunked && !http2 {
            let coding = HeaderValue::from_static("chunked");
            request
                .headers_mut()
                .insert(header::TRANSFER_ENCODING, coding);
        }
        let request = request.map(|body| {
            let body = serving.share.pin(body);
            Upload::new(body, chunked).boxed_unsync()
        });
        local::send(connection, http2, request).await
    };
    pass_on_or_explain(serving, answered, repeatable, line, grpc)
}

/// Sends a request without a body on an idle connection.
///
/// None if there is none, or the server closed it at that moment.
async fn send_again(serving: &Serving, request: &Request<Incoming>) -> Option<Answered> {
    let connection = serving.pool.take()?;
    let mut again = Request::new(empty_body());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    connection.send_again(again).await
}

/// What the developer's server said.
type Answered = Result<(Response<Incoming>, Connection), NoAnswer>;

fn pass_on_or_explain(
    serving: &Serving,
    answered: Answered,
    repeatable: bool,
    line: Line,
    grpc: bool,
) -> Response<Body> {
    match answered {
        Ok((response, connection)) => {
            let pool = repeatable.then(|| serving.pool.clone());
            pass_on(response, connection, pool, line, grpc)
        }
        Err(NoAnswer::NeverProcessed) => {
            line.fell_back("the developer's server refused the request".to_owned());
            Unavailable::Refused.answer()
        }
        Err(NoAnswer::Broken(reason)) => {
            let answer = marks::lost(&format!("the developer's server broke off: {reason}"), grpc);
            line.lost(answer.status(), reason);
            answer
        }
        Err(NoAnswer::TooLarge) => too_large(line, grpc),
        // The receiver is gone.
        Err(NoAnswer::Cancelled) => marks::lost("the client broke off its request", grpc),
    }
}

/// Forwards a response of the developer's server, without the headers that only we may set.
///
/// Its connection goes to `pool`.
fn pass_on(
    response: Response<Incoming>,
    connection: Connection,
    pool: Option<Pool>,
    mut line: Line,
    grpc: bool,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if !headers::fits(&parts.headers) {
        return too_large(line, grpc);
    }
    line.answered(parts.status);
    headers::remove_hop_by_hop(&mut parts.headers);
    headers::remove_ours(&mut parts.headers);
    Notes::default().write(&mut parts.headers);
    let is_h2 = parts.version == Version::HTTP_2;
    // hyper goes on in the version of the last response.
    let pool = pool.filter(|_| parts.version == Version::HTTP_11);
    parts.version = Version::HTTP_2;
    let body = Answer::new(body, is_h2, line, connection, pool).boxed_unsync();
    Response::from_parts(parts, body)
}

/// The answer in place of one whose headers the tunnel does not pass.
fn too_large(line: Line, grpc: bool) -> Response<Body> {
    let reason = "the header list of the developer's server is larger than the tunnel passes";
    let answer = marks::failed(reason, grpc);
    line.failed(answer.status(), reason.to_owned());
    answer
}

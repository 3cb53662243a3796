//! One request of a developer: a dial, a DNS question, the configuration, or a beat.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use super::audit::DialRecord;
use super::developers::Developer;
use super::dialer::{Dialled, Failed};
use super::shared::Shared;
use crate::chunk::Chunk;
use crate::connection::Connection;
use crate::dial::{Destination, DialError};
use crate::pump::{Passed, pump};
use crate::settings::DNS_MESSAGE;
use crate::words::{BEAT_PATH, CONFIG_PATH, DIAL_HEADER, DNS_PATH, DNS_TYPE, REASON_HEADER};

/// How long the body of a DNS question may take.
const BODY: Duration = Duration::from_secs(5);

/// A developer on one connection.
pub(super) struct Visit {
    pub(super) intercept: String,
    pub(super) instance: String,
    pub(super) shared: Arc<Shared>,
    pub(super) developer: Arc<Developer>,
}

/// Answers one request; sends nothing to a peer that is gone.
pub(super) async fn handle(
    visit: Arc<Visit>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Chunk>,
) {
    let path = request.uri().path();
    if request.method() == Method::CONNECT {
        return connect(&visit, request, respond).await;
    }
    let (status, kind, body) = match (request.method(), path) {
        (&Method::GET, BEAT_PATH) => (StatusCode::NO_CONTENT, None, None),
        (&Method::GET, CONFIG_PATH) => {
            let config = visit.shared.config.clone();
            (StatusCode::OK, Some("application/json"), Some(config))
        }
        (&Method::POST, DNS_PATH) => match dns(&visit, request.into_body()).await {
            Ok(answer) => (StatusCode::OK, Some(DNS_TYPE), Some(answer)),
            Err(status) => (status, None, None),
        },
        _ => (StatusCode::NOT_FOUND, None, None),
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Some(kind) = kind {
        let kind = HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    if let (Ok(mut stream), Some(body)) = (respond.send_response(response, body.is_none()), body) {
        let _ = stream.send_data(Chunk::from(body), true);
    }
}

async fn dns(visit: &Visit, body: RecvStream) -> Result<Bytes, StatusCode> {
    let message = timeout(BODY, whole(body)).await;
    let message = message.ok().flatten().ok_or(StatusCode::BAD_REQUEST)?;
    let turn = visit.developer.questions.turn().await;
    turn.map_err(|_| StatusCode::TOO_MANY_REQUESTS)?;
    let resolver = visit.shared.dialer.resolver();
    let answer = resolver.answer(message).await;
    let outcome = if answer.is_some() { "ok" } else { "failed" };
    visit.shared.metrics.count_dns(outcome);
    answer.ok_or(StatusCode::GATEWAY_TIMEOUT)
}

async fn whole(mut stream: RecvStream) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = poll_fn(|cx| stream.poll_data(cx)).await {
        let bytes = bytes.ok()?;
        stream.flow_control().release_capacity(bytes.len()).ok()?;
        whole.extend_from_slice(&bytes);
        if whole.len() > DNS_MESSAGE {
            return None;
        }
    }
    Some(whole.freeze())
}

async fn connect(visit: &Visit, request: Request<RecvStream>, respond: SendResponse<Chunk>) {
    let started = Instant::now();
    let authority = request.uri().authority().map(ToString::to_string);
    let mut record = DialRecord {
        time: Timestamp::now(),
        intercept: visit.intercept.clone(),
        instance: visit.instance.clone(),
        destination: authority.unwrap_or_default(),
        address: None,
        outcome: "ok",
        reason: None,
        sent: 0,
        received: 0,
        seconds: 0.0,
    };
    // Held until the record is taken: what is not recorded is not dialled.
    let place = visit.developer.place();
    let outcome = match &place {
        Ok(_) => dial(visit, &record.destination, respond).await,
        Err(limit) => Outcome::Failed(Failed::denied(limit), respond),
    };
    match outcome {
        Outcome::Cancelled => record.outcome = "cancelled",
        Outcome::Failed(failed, respond) => {
            refuse(&failed, respond);
            record.outcome = failed.error.as_str();
            record.address = failed.address;
            record.reason = Some(failed.reason);
        }
        Outcome::Open(dialled, respond) => {
            record.address = Some(dialled.address);
            pass(visit, dialled, request.into_body(), respond, &mut record).await;
        }
    }
    record.seconds = started.elapsed().as_secs_f64();
    visit.shared.metrics.count_dial(&record);
    let _ = visit.shared.audit.send(record).await;
}

enum Outcome {
    Open(Dialled, SendResponse<Chunk>),
    Failed(Failed, SendResponse<Chunk>),
    Cancelled,
}

/// Until the dial has an outcome, or its caller has given up.
async fn dial(visit: &Visit, destination: &str, mut respond: SendResponse<Chunk>) -> Outcome {
    let dialled = async {
        let destination: Destination = destination.parse().map_err(|error| Failed {
            error: DialError::Unknown,
            address: None,
            reason: format!("{error}"),
        })?;
        visit.developer.dials.turn().await.map_err(Failed::denied)?;
        visit.shared.dialer.dial(&destination).await
    };
    tokio::select! {
        dialled = dialled => match dialled {
            Ok(dialled) => Outcome::Open(dialled, respond),
            Err(failed) => Outcome::Failed(failed, respond),
        },
        _ = poll_fn(|cx| respond.poll_reset(cx)) => Outcome::Cancelled,
    }
}

fn refuse(failed: &Failed, mut respond: SendResponse<Chunk>) {
    let mut response = Response::new(());
    *response.status_mut() = match failed.error {
        DialError::Denied => StatusCode::FORBIDDEN,
        DialError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        DialError::Refused | DialError::Unreachable | DialError::Unknown => StatusCode::BAD_GATEWAY,
    };
    let headers = response.headers_mut();
    headers.insert(DIAL_HEADER, HeaderValue::from_static(failed.error.as_str()));
    if let Ok(reason) = HeaderValue::from_str(&failed.reason) {
        headers.insert(REASON_HEADER, reason);
    }
    let _ = respond.send_response(response, true);
}

async fn pass(
    visit: &Visit,
    dialled: Dialled,
    body: RecvStream,
    mut respond: SendResponse<Chunk>,
    record: &mut DialRecord,
) {
    let Ok(stream) = respond.send_response(Response::new(()), false) else {
        return crate::pump::reset(dialled.stream);
    };
    let _counted = visit.shared.metrics.connection();
    let memory = Arc::clone(&visit.developer.memory);
    let connection = Connection::new(body, stream, Some(memory));
    let passed = Passed::default();
    if let Err(error) = pump(dialled.stream, connection, &passed).await {
        record.reason = Some(error.to_string());
    }
    record.sent = passed.to_tcp.load(Ordering::Relaxed);
    record.received = passed.from_tcp.load(Ordering::Relaxed);
}

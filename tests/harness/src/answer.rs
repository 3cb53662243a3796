//! The responses of an app, as requested by the header [`TEST_DO`]. Knows nothing of counting.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::Sender;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::{Body, BoxError, TEST_DO};
use crate::{grpc, websocket};

/// What an app does with a request besides counting it. `to_string` is the value of [`TEST_DO`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Reads the body, and responds with [`Seen`] in JSON.
    Tell,
    /// The same after that many milliseconds.
    Sleep(u64),
    /// Responds with that status.
    Status(u16),
    /// Never responds if the app has this name; otherwise as [`Do::Tell`].
    HoldAt(&'static str),
    /// As [`Do::Tell`], but an app of this name waits for the line [`GO`] first.
    ///
    /// See [`crate::app::App::say`].
    WaitAt(&'static str),
    /// Echoes the body as it arrives, and the request's trailers.
    Echo,
    /// Sends that many bytes.
    Bytes(u64),
    /// Sends server-sent events, one for each line of [`crate::app::App::say`].
    Events,
    /// Sends numbered server-sent events at this interval in milliseconds, without end.
    Ticks(u64),
    /// Sends three chunks and the trailer `test-trailer: NAME`.
    Trailers,
}

impl std::fmt::Display for Do {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tell => f.write_str("tell"),
            Self::Sleep(millis) => write!(f, "sleep={millis}"),
            Self::Status(status) => write!(f, "status={status}"),
            Self::HoldAt(name) => write!(f, "hold={name}"),
            Self::WaitAt(name) => write!(f, "wait={name}"),
            Self::Echo => f.write_str("echo"),
            Self::Bytes(count) => write!(f, "bytes={count}"),
            Self::Events => f.write_str("events"),
            Self::Ticks(millis) => write!(f, "ticks={millis}"),
            Self::Trailers => f.write_str("trailers"),
        }
    }
}

impl Do {
    fn of<B>(request: &Request<B>, name: &str) -> Self {
        let text = request
            .headers()
            .get(TEST_DO)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("tell");
        let (verb, number) = text.split_once('=').unwrap_or((text, "0"));
        match verb {
            "hold" if number == name => return Self::HoldAt(""),
            "wait" if number == name => return Self::WaitAt(""),
            "hold" | "wait" => return Self::Tell,
            _ => {}
        }
        let number = number.parse().expect("a number in test-do");
        match verb {
            "tell" => Self::Tell,
            "sleep" => Self::Sleep(number),
            "status" => Self::Status(number.try_into().expect("a status")),
            "echo" => Self::Echo,
            "bytes" => Self::Bytes(number),
            "events" => Self::Events,
            "ticks" => Self::Ticks(number),
            "trailers" => Self::Trailers,
            other => panic!("test-do: {other} is nothing that the app can do"),
        }
    }
}

/// The line that releases [`Do::WaitAt`].
pub const GO: &str = "go";

/// An app's report about a request ([`Do::Tell`]).
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

    /// Parses the response to [`Do::Tell`].
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

/// Responds as the request asks.
pub(crate) async fn respond(
    request: Request<Incoming>,
    name: &str,
    lines: &Sender<String>,
) -> Result<Response<Body>, BoxError> {
    if websocket::is_asked_for(&request) {
        return Ok(websocket::echo(request)?.map(|body| body.map_err(never).boxed_unsync()));
    }
    let what = Do::of(&request, name);
    if grpc::is_asked_for(&request) && what == Do::Tell {
        return grpc::answer(request).await;
    }
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
        Do::HoldAt(_) => std::future::pending().await,
        Do::WaitAt(_) => {
            let mut lines = lines.subscribe();
            let told = tell(request).await?;
            while lines.recv().await? != GO {}
            told
        }
        Do::Echo => request.into_body().map_err(BoxError::from).boxed_unsync(),
        Do::Bytes(count) => zeros(count),
        Do::Events => return Ok(events(lines)),
        Do::Ticks(millis) => return Ok(ticks(millis)),
        Do::Trailers => trailers(name)?,
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

/// A body's SHA-256, as [`Seen::sha256`].
pub fn sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
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

fn events(lines: &Sender<String>) -> Response<Body> {
    let (frames_tx, frames_rx) = tokio::sync::mpsc::channel(16); // broadcast → body: one frame per line
    let mut lines = lines.subscribe();
    tokio::spawn(async move {
        while let Ok(line) = lines.recv().await {
            let frame = Frame::data(Bytes::from(format!("data: {line}\n\n")));
            if frames_tx.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    });
    event_stream(StreamBody::new(ReceiverStream::new(frames_rx)).boxed_unsync())
}

/// A response without a task of its own: it ends with its connection.
fn ticks(millis: u64) -> Response<Body> {
    let mut interval = tokio::time::interval(Duration::from_millis(millis));
    let mut number = 0_u64;
    let frames = futures_util::stream::poll_fn(move |cx| {
        interval.poll_tick(cx).map(|_| {
            let frame = Frame::data(Bytes::from(format!("data: {number}\n\n")));
            number += 1;
            Some(Ok(frame))
        })
    });
    event_stream(StreamBody::new(frames).boxed_unsync())
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
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

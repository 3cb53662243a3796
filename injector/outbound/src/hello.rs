//! How a connection between the two ends is opened.
//!
//! ```text
//! developer → cluster   GET /outbound HTTP/1.1, Connection: upgrade, Upgrade: intercept-h2-out, and [`Hello`] in headers
//! cluster → developer   101, or a status ≥ 400 with a text and `x-intercept-retry`
//! then                  HTTP/2, the developer as the client
//! ```
//! The header names are those of the tunnel. Knows nothing of what the proof proves.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};

use crate::settings::VERSION;

pub(crate) const PATH: &str = "/outbound";

const PROTOCOL: HeaderValue = HeaderValue::from_static("intercept-h2-out");
const OUTBOUND_VERSION: HeaderName = HeaderName::from_static("x-intercept-outbound-version");
const SECRET: HeaderName = HeaderName::from_static("x-intercept-tunnel-secret");
const NAME: HeaderName = HeaderName::from_static("x-intercept-tunnel-name");
const INSTANCE: HeaderName = HeaderName::from_static("x-intercept-tunnel-instance");
const RETRY: HeaderName = HeaderName::from_static("x-intercept-retry");

const REJECTION_TEXT: usize = 4 * 1024;

/// What proves a live intercept. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof(pub String);

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Proof(masked)")
    }
}

/// What a developer's end says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What proves a live intercept: the secret of its tunnel.
    pub proof: Proof,
    /// The intercept's name, visible ASCII.
    pub name: String,
    /// One per running program.
    pub instance: String,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The status of HTTP.
    pub status: u16,
    /// A text for the developer.
    pub reason: String,
    /// Whether it may work later.
    pub retry: bool,
}

impl Hello {
    pub(crate) fn request(&self) -> http::Result<Request<Empty<Bytes>>> {
        let mut secret = HeaderValue::from_str(&self.proof.0)?;
        secret.set_sensitive(true);
        Request::get(PATH)
            .header(header::HOST, "outbound")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, PROTOCOL)
            .header(OUTBOUND_VERSION, VERSION)
            .header(SECRET, secret)
            .header(NAME, &self.name)
            .header(INSTANCE, &self.instance)
            .body(Empty::new())
    }

    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Rejection> {
        if headers.get(header::UPGRADE) != Some(&PROTOCOL) {
            let reason = "expected the header `Upgrade: intercept-h2-out`";
            return Err(Rejection::fatal(StatusCode::UPGRADE_REQUIRED, reason));
        }
        let version = text(headers, &OUTBOUND_VERSION).unwrap_or_default();
        if version != VERSION.to_string() {
            let reason = format!(
                "version {VERSION} of outbound connections runs here, the developer machine has version {version:?}"
            );
            return Err(Rejection::fatal(StatusCode::BAD_REQUEST, reason));
        }
        let required = |name: &HeaderName| {
            text(headers, name)
                .filter(|text| !text.is_empty())
                .ok_or_else(|| {
                    Rejection::fatal(StatusCode::BAD_REQUEST, format!("{name}: missing header"))
                })
        };
        Ok(Self {
            proof: Proof(required(&SECRET)?),
            name: required(&NAME)?,
            instance: required(&INSTANCE)?,
        })
    }
}

impl Rejection {
    /// Trying again would change nothing.
    pub fn fatal(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            reason: reason.into(),
            retry: false,
        }
    }

    /// It may work later.
    pub fn for_now(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            retry: true,
            ..Self::fatal(status, reason)
        }
    }

    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.reason)));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = if self.retry { "yes" } else { "no" };
        let headers = response.headers_mut();
        headers.insert(RETRY, HeaderValue::from_static(retry));
        response
    }

    /// What is not the cluster's end says nothing of trying again: a server's error may pass.
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let status = response.status();
        let retry = response
            .headers()
            .get(RETRY)
            .map_or(status.is_server_error(), |word| word == "yes");
        let body = Limited::new(response.into_body(), REJECTION_TEXT)
            .collect()
            .await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        Self {
            status: status.as_u16(),
            reason: if text.is_empty() {
                status.to_string()
            } else {
                text
            },
            retry,
        }
    }
}

/// The answer to a hello that is taken.
pub(crate) fn welcome() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, PROTOCOL);
    response
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

//! Opens a tunnel: both ends of the handshake, over any stream.
//!
//! ```text
//! developer → relay   GET /tunnel HTTP/1.1, Connection: upgrade, Upgrade: intercept-h2, and [`Hello`] in headers
//! relay → developer   101 and [`Welcome`] in headers, or a status ≥ 400 with a text and [`RETRY`]
//! then                HTTP/2, the relay as the client
//! ```
//! Knows nothing of who holds which address, or of how the stream was opened.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Body, Secret, text_body, with_causes};

/// Protocol version of the two ends. Any other version is refused.
pub const VERSION: u32 = 2;

/// The path on the control port that opens a tunnel.
pub(super) const PATH: &str = "/tunnel";

const PROTOCOL: HeaderValue = HeaderValue::from_static("intercept-h2");
const TUNNEL_VERSION: HeaderName = HeaderName::from_static("x-intercept-tunnel-version");
const SECRET: HeaderName = HeaderName::from_static("x-intercept-tunnel-secret");
const NAME: HeaderName = HeaderName::from_static("x-intercept-tunnel-name");
const IDENTITY: HeaderName = HeaderName::from_static("x-intercept-tunnel-identity");
const INSTANCE: HeaderName = HeaderName::from_static("x-intercept-tunnel-instance");
const REPLACE: HeaderName = HeaderName::from_static("x-intercept-tunnel-replace");
const RELAY_VERSION: HeaderName = HeaderName::from_static("x-intercept-relay-version");
const RETRY: HeaderName = HeaderName::from_static("x-intercept-retry");

const REFUSAL_TEXT: usize = 4 * 1024;

/// The developer machine's request for a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) secret: Secret,
    /// The intercept's name, visible ASCII.
    pub(super) name: String,
    /// The SPIFFE identity of the only workload that may use the tunnel.
    ///
    /// `None` allows every caller of the relay.
    pub(super) identity: Option<String>,
    /// Identifies the running program.
    ///
    /// A second connection of the same program is a reconnect, one of another program a replacement.
    pub(super) instance: String,
    /// Take over the address from another running program.
    pub(super) replace: bool,
}

/// The relay's response to a developer machine that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) relay_version: String,
}

/// The relay's response to one that it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
    pub(super) retry: bool,
}

/// Why a tunnel could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Refused(Refusal),
    Broken(String),
}

/// Opens a tunnel from the developer's end. Returns the stream on which HTTP/2 begins.
pub(super) async fn open<T>(io: T, hello: &Hello) -> Result<(Upgraded, Welcome), OpenError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<&[u8]>>(TokioIo::new(io))
            .await
            .map_err(OpenError::broken)?;
    let connection = tokio::spawn(connection.with_upgrades());
    let opened = ask(&mut sender, hello).await;
    if opened.is_err() {
        connection.abort();
    }
    opened
}

async fn ask(
    sender: &mut hyper::client::conn::http1::SendRequest<Empty<&'static [u8]>>,
    hello: &Hello,
) -> Result<(Upgraded, Welcome), OpenError> {
    let response = sender
        .send_request(hello.request()?)
        .await
        .map_err(OpenError::broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(OpenError::Refused(Refusal::read(response).await));
    }
    let welcome = Welcome::read(response.headers());
    Ok((
        hyper::upgrade::on(response)
            .await
            .map_err(OpenError::broken)?,
        welcome,
    ))
}

impl Hello {
    fn request(&self) -> Result<Request<Empty<&'static [u8]>>, OpenError> {
        let mut secret = HeaderValue::from_str(&self.secret.expose()).map_err(OpenError::broken)?;
        secret.set_sensitive(true);
        let mut request = Request::get(PATH)
            .header(header::HOST, "relay")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, PROTOCOL)
            .header(TUNNEL_VERSION, VERSION)
            .header(SECRET, secret)
            .header(NAME, &self.name)
            .header(INSTANCE, &self.instance);
        if let Some(identity) = &self.identity {
            request = request.header(IDENTITY, identity);
        }
        if self.replace {
            request = request.header(REPLACE, "yes");
        }
        request.body(Empty::new()).map_err(OpenError::broken)
    }

    /// Parses a request for a tunnel on the relay's end.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        if headers.get(header::UPGRADE) != Some(&PROTOCOL) {
            return Err(Refusal::fatal(
                StatusCode::UPGRADE_REQUIRED,
                "a tunnel is opened with `Upgrade: intercept-h2`",
            ));
        }
        let version = text(headers, &TUNNEL_VERSION).unwrap_or_default();
        if version != VERSION.to_string() {
            let ours = env!("CARGO_PKG_VERSION");
            let reason = format!(
                "this relay (injector {ours}) speaks version {VERSION} of the tunnel, the developer machine version {version:?}"
            );
            return Err(Refusal::fatal(StatusCode::BAD_REQUEST, reason));
        }
        let missing = |what: &str| {
            Refusal::fatal(
                StatusCode::BAD_REQUEST,
                format!("{what} is missing or is not what the tunnel expects"),
            )
        };
        Ok(Self {
            secret: text(headers, &SECRET)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| missing("the secret"))?,
            name: text(headers, &NAME)
                .filter(|name| !name.is_empty())
                .ok_or_else(|| missing("the intercept's name"))?,
            identity: text(headers, &IDENTITY),
            instance: text(headers, &INSTANCE).ok_or_else(|| missing("the instance"))?,
            replace: headers.contains_key(REPLACE),
        })
    }
}

impl Welcome {
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(super::empty_body());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, PROTOCOL);
        headers.insert(RELAY_VERSION, super::marks::visible(&self.relay_version));
        response
    }

    fn read(headers: &HeaderMap) -> Self {
        Self {
            relay_version: text(headers, &RELAY_VERSION).unwrap_or_default(),
        }
    }
}

impl Refusal {
    /// A permanent refusal.
    pub(super) fn fatal(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            retry: false,
        }
    }

    /// A temporary refusal.
    pub(super) fn for_now(reason: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: reason.into(),
            retry: true,
        }
    }

    /// The relay is full; another one may have room.
    pub(super) fn full(reason: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INSUFFICIENT_STORAGE,
            ..Self::for_now(reason)
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.status == StatusCode::INSUFFICIENT_STORAGE && self.retry
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(text_body(format!("{}\n", self.reason)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(
            RETRY,
            HeaderValue::from_static(if self.retry { "yes" } else { "no" }),
        );
        response
    }

    /// Parses a refusal.
    ///
    /// Only a relay says whether to retry; for other servers (a proxy's error page, another program) 5xx is temporary, the rest permanent.
    async fn read(response: Response<Incoming>) -> Self {
        let status = response.status();
        let retry = response
            .headers()
            .get(RETRY)
            .map_or(status.is_server_error(), |word| word == "yes");
        let text = Limited::new(response.into_body(), REFUSAL_TEXT)
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let reason = String::from_utf8_lossy(&text).trim().to_owned();
        Self {
            status,
            reason: if reason.is_empty() {
                status.to_string()
            } else {
                reason
            },
            retry,
        }
    }
}

impl OpenError {
    fn broken(error: impl std::error::Error) -> Self {
        Self::Broken(with_causes(&error))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(
                f,
                "the relay answered {}: {}",
                refusal.status.as_u16(),
                refusal.reason
            ),
            Self::Broken(reason) => write!(f, "the connection to the relay broke: {reason}"),
        }
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn hello() -> Hello {
        Hello {
            secret: Secret::random(),
            name: "orders-bob".into(),
            identity: Some("spiffe://a/b".into()),
            instance: "1".into(),
            replace: true,
        }
    }

    /// A relay's end that responds to requests for a tunnel with `answer`, and then sends first.
    fn relay_end(
        answer: impl Fn(Result<Hello, Refusal>) -> Response<Body> + Send + Sync + Clone + 'static,
    ) -> DuplexStream {
        let (ours, theirs) = duplex(1024);
        tokio::spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let response = answer(Hello::read(request.headers()));
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    if let Ok(upgraded) = upgrade.await {
                        TokioIo::new(upgraded)
                            .write_all(b"first bytes")
                            .await
                            .unwrap();
                    }
                });
                async move { Ok::<_, Infallible>(response) }
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(ours), service)
                .with_upgrades()
                .await
        });
        theirs
    }

    #[tokio::test]
    async fn handshake_keeps_following_bytes() {
        let said = hello();
        let expected = said.clone();
        let welcome = Welcome {
            relay_version: "1.2.3".into(),
        };
        let answer = welcome.clone();
        let io = relay_end(move |heard| {
            let heard = heard.unwrap();
            assert_eq!(
                (&heard.secret, &heard.name, &heard.identity),
                (&expected.secret, &expected.name, &expected.identity)
            );
            assert_eq!((&heard.instance, heard.replace), (&expected.instance, true));
            answer.response()
        });
        let (upgraded, heard) = open(io, &said).await.unwrap();
        assert_eq!(heard, welcome);
        let mut text = String::new();
        TokioIo::new(upgraded)
            .take(11)
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "first bytes");
    }

    #[tokio::test]
    async fn refusal_has_reason_and_retry() {
        for refusal in [
            Refusal::for_now("leaving"),
            Refusal::full("full"),
            Refusal::fatal(StatusCode::CONFLICT, "taken"),
        ] {
            let answer = refusal.clone();
            let error = open(relay_end(move |_| answer.response()), &hello())
                .await
                .unwrap_err();
            assert!(
                matches!(error, OpenError::Refused(ref heard) if *heard == refusal),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn unknown_peer_is_retried_after_5xx_only() {
        for (status, retry) in [
            (StatusCode::BAD_GATEWAY, true),
            (StatusCode::NOT_FOUND, false),
        ] {
            let io = relay_end(move |_| {
                Response::builder()
                    .status(status)
                    .body(text_body("hm"))
                    .unwrap()
            });
            let error = open(io, &hello()).await.unwrap_err();
            assert!(
                matches!(error, OpenError::Refused(ref heard) if heard.retry == retry),
                "{error:?}"
            );
        }
    }

    #[test]
    fn wrong_version_or_secret_is_final() {
        let mut headers = hello().request().unwrap().headers().clone();
        assert!(Hello::read(&headers).is_ok());
        headers.insert(TUNNEL_VERSION, HeaderValue::from(VERSION + 1));
        assert!(
            Hello::read(&headers)
                .unwrap_err()
                .reason
                .contains(&format!("version {VERSION}"))
        );
        headers.insert(TUNNEL_VERSION, HeaderValue::from(VERSION));
        headers.insert(SECRET, HeaderValue::from_static("s3cret"));
        let refusal = Hello::read(&headers).unwrap_err();
        assert!(
            !refusal.retry && !refusal.reason.contains("s3cret"),
            "{refusal:?}"
        );
    }
}

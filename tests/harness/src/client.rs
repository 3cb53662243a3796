//! HTTP clients without retries, and their results.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;

use crate::app::{ANSWERED_BY, BoxError, Do, Seen, TEST_DO, TEST_ID};
use crate::endpoint::Endpoint;
use crate::wait;

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A client for one address, with pooled connections of one protocol.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    client: legacy::Client<Endpoint, Body>,
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// GET that path.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// POST that many bytes.
    pub fn post(path: &str, length: usize) -> Self {
        let body = (0..length)
            .map(|place| u8::try_from(place % 251).expect("below 251"))
            .collect();
        Self {
            method: Method::POST,
            body,
            ..Self::get(path)
        }
    }

    /// Sets the method.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Adds a header line; the value may be any valid bytes.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
            HeaderValue::from_bytes(value.as_ref()).expect("a header value"),
        );
        self
    }

    /// Sets a name under which the apps count the request.
    pub fn id(self, id: impl std::fmt::Display) -> Self {
        self.header(TEST_ID, id.to_string())
    }

    /// Says what the app is to do.
    pub fn to(self, what: Do) -> Self {
        self.header(TEST_DO, what.to_string())
    }

    /// The body to send.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
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
    /// Its trailers, if there were any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The name of the app that sent the response; "nobody" for a response from a proxy on the way.
    pub fn by(&self) -> &str {
        self.header(ANSWERED_BY).unwrap_or("nobody")
    }

    /// The app's report about the request.
    pub fn seen(&self) -> Seen {
        Seen::parse(&self.body)
    }
}

impl Client {
    /// A client for HTTP/1.1.
    pub fn h1(endpoint: impl Into<Endpoint>) -> Self {
        Self::new(endpoint.into(), false)
    }

    /// A client for HTTP/2 without TLS.
    pub fn h2c(endpoint: impl Into<Endpoint>) -> Self {
        Self::new(endpoint.into(), true)
    }

    fn new(endpoint: Endpoint, is_h2: bool) -> Self {
        let authority = endpoint.authority().to_owned();
        let client = legacy::Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .http2_only(is_h2)
            .http2_initial_stream_window_size(1 << 20)
            .http2_max_header_list_size(1 << 20)
            .build(endpoint);
        Self { authority, client }
    }

    /// Sends a request and reads the whole response.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, BoxError> {
        collect(self.open(ask).await?).await
    }

    /// The same, for requests that must succeed.
    pub async fn must(&self, ask: Ask) -> Answer {
        self.ask(ask).await.expect("an answer")
    }

    /// GETs a path with those headers.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let ask = headers
            .iter()
            .fold(Ask::get(path), |ask, (name, value)| ask.header(name, value));
        self.must(ask).await
    }

    /// Sends a request and reads the head of the response.
    pub async fn open(&self, ask: Ask) -> Result<Response<Incoming>, BoxError> {
        let body = Full::new(ask.body.clone())
            .map_err(|never| match never {})
            .boxed_unsync();
        self.open_with(ask, body).await
    }

    /// The same with another body.
    pub async fn open_with(&self, ask: Ask, body: Body) -> Result<Response<Incoming>, BoxError> {
        let mut request = Request::new(body);
        *request.method_mut() = ask.method;
        *request.uri_mut() = format!("http://{}{}", self.authority, ask.path).parse()?;
        *request.headers_mut() = ask.headers;
        Ok(self.client.request(request).await?)
    }
}

/// Panics unless the developer's server responded, on behalf of that intercept.
pub fn assert_served(answer: &Answer, intercept: &str, what: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.by()),
        (200, "server"),
        "{what}"
    );
    for mark in ["x-intercept", "x-intercept-served-by"] {
        assert_eq!(answer.header(mark), Some(intercept), "{mark}: {what}");
    }
}

/// Panics unless the app responded, without any of our headers.
pub fn assert_untouched(answer: &Answer, what: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.by()),
        (200, "app"),
        "{what}"
    );
    assert_no_marks(answer, what);
}

/// Panics if the response has any of our headers.
pub fn assert_no_marks(answer: &Answer, what: &str) {
    let marks = answer.headers.keys();
    let mut marks = marks.filter(|name| name.as_str().starts_with("x-intercept"));
    assert_eq!(marks.next(), None, "{what}");
}

/// A response that broke off after its head.
#[derive(Debug)]
pub struct BrokenOff {
    /// The headers of the response.
    pub headers: HeaderMap,
    cause: hyper::Error,
}

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer broke off: {}", self.cause)
    }
}

impl std::error::Error for BrokenOff {}

/// Reads a response to its end. Errors: [`BrokenOff`].
pub async fn collect(response: Response<Incoming>) -> Result<Answer, BoxError> {
    let (parts, body) = response.into_parts();
    let collected = match body.collect().await {
        Ok(collected) => collected,
        Err(cause) => {
            let headers = parts.headers;
            return Err(BrokenOff { headers, cause }.into());
        }
    };
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        trailers: collected.trailers().cloned(),
        body: collected.to_bytes(),
    })
}

/// Waits until 20 new connections in a row give the right response, so that every replica does.
pub async fn wait_answered(
    endpoint: &Endpoint,
    what: &str,
    path: &str,
    headers: &[(&str, &str)],
    is_right: impl Fn(&Answer) -> bool,
) {
    let (mut seen, started) = (String::new(), Instant::now());
    let mut row = 0;
    while row < 20 {
        let answer = Client::h1(endpoint.clone()).get(path, headers).await;
        row = if is_right(&answer) { row + 1 } else { 0 };
        if row == 0 {
            seen = format!("{answer:?}");
        }
        assert!(
            started.elapsed() < wait::DEADLINE,
            "waited in vain until {what}; last {seen}"
        );
    }
}

//! The HTTP side of the proxy (RFC 9110): CONNECT, and plain requests that name their host in the first line.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::route::Upstream;
use super::shared::{GREETING, Shared, USER};
use crate::dial::{Destination, DialError};

type Body = BoxBody<Bytes, hyper::Error>;

/// Headers that are for the next hop only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("proxy-connection"),
];

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, shared: Shared) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    // How it ended, the client has seen.
    let _ = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    if !is_admitted(shared, request.headers()) {
        let mut response = text(
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "this proxy belongs to one command, whose variables have its password",
        );
        let basic = HeaderValue::from_static("Basic realm=\"injector\"");
        response
            .headers_mut()
            .insert(header::PROXY_AUTHENTICATE, basic);
        return response;
    }
    let answered = match *request.method() {
        Method::CONNECT => connect(shared, request).await,
        _ => forward(shared, request).await,
    };
    answered.unwrap_or_else(|refusal| refusal)
}

fn is_admitted(shared: &Shared, headers: &HeaderMap) -> bool {
    let expected = STANDARD.encode(format!("{USER}:{}", shared.password.0));
    let given = headers.get(header::PROXY_AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.split_once(' '));
    given.is_some_and(|(scheme, word)| {
        scheme.eq_ignore_ascii_case("basic") && word.trim() == expected
    })
}

async fn connect(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Body>, Response<Body>> {
    let destination = destination(request.uri(), None).ok_or_else(no_destination)?;
    let upstream = dial(shared, &destination).await?;
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await
            && let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>()
        {
            upstream
                .transfer(parts.io.into_inner(), &parts.read_buf)
                .await;
        }
    });
    Ok(Response::new(Body::default()))
}

/// Each request has a connection of its own.
async fn forward(
    shared: &Shared,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Response<Body>> {
    if request.uri().scheme_str() != Some("http") {
        let reason = "expected a request to a proxy: an http:// URL in its first line, or CONNECT";
        return Err(text(StatusCode::BAD_REQUEST, reason));
    }
    let destination = destination(request.uri(), Some(80)).ok_or_else(no_destination)?;
    let upstream = dial(shared, &destination).await?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
    remove_hop_by_hop(request.headers_mut());
    let sent = match upstream {
        Upstream::Cluster(connection) => send(connection, request).await,
        Upstream::Host(stream) => send(stream, request).await,
    };
    let mut response = sent.map_err(|error| {
        let reason = format!("{destination}: {error}");
        text(StatusCode::BAD_GATEWAY, &reason)
    })?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(BodyExt::boxed))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Incoming>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

async fn dial(shared: &Shared, destination: &Destination) -> Result<Upstream, Response<Body>> {
    let connected = shared.route.connect(destination).await;
    connected.map_err(|error| {
        let status = match error {
            DialError::Denied => StatusCode::FORBIDDEN,
            DialError::Timeout => StatusCode::GATEWAY_TIMEOUT,
            DialError::Refused | DialError::Unreachable | DialError::Unknown => {
                StatusCode::BAD_GATEWAY
            }
        };
        text(status, &format!("{destination}: {error}"))
    })
}

fn destination(uri: &Uri, default_port: Option<u16>) -> Option<Destination> {
    let authority = uri.authority()?;
    let port = authority.port_u16().or(default_port)?;
    format!("{}:{port}", authority.host()).parse().ok()
}

fn no_destination() -> Response<Body> {
    text(StatusCode::BAD_REQUEST, "expected HOST:PORT")
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::from(format!("{text}\n"));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

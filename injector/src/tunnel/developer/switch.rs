//! WebSockets on the developer's end: an extended CONNECT from the relay becomes an HTTP/1.1 upgrade at the developer's server (RFC 8441 turned back into RFC 6455).

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::local::{self, Connection, NoAnswer};
use super::under_way::Counted;
use crate::tunnel::stream::Notes;
use crate::tunnel::{Body, empty_body, headers, join};

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;

/// What the developer's server said to a client that wants to switch.
pub(super) enum Switch {
    /// It did: the answer to the relay; the connections are joined.
    Done(Response<Body>),
    /// It answered something else.
    Declined(Response<Incoming>, Connection),
}

/// Asks the developer's server to switch.
pub(super) async fn through(
    connection: TcpStream,
    mut request: Request<Incoming>,
) -> Result<Switch, NoAnswer> {
    let tunnel = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    parts.method = Method::GET;
    let counted = parts.extensions.remove::<Counted>();
    parts.extensions.clear();
    parts
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts
        .headers
        .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    // A client that came by HTTP/2 has no key (RFC 8441 §5); the server needs one, and nobody checks the answer to ours.
    let ours = !parts.headers.contains_key(KEY);
    if ours {
        parts.headers.insert(KEY, random_key());
    }
    let request = Request::from_parts(parts, empty_body());
    let (mut response, connection) = local::send(connection, false, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Switch::Declined(response, connection));
    }
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        join(tunnel, server).await;
        drop((connection, counted));
    });
    let notes = Notes {
        switched: response.headers_mut().remove(header::UPGRADE),
        ..Notes::default()
    };
    let mut answer = Response::new(empty_body());
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    headers::remove_hop_by_hop(answer.headers_mut());
    headers::remove_ours(answer.headers_mut());
    if ours {
        answer.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    }
    notes.write(answer.headers_mut());
    Ok(Switch::Done(answer))
}

/// 16 random bytes in base64 (RFC 6455 §4.1): 21 digits and one of the four that leave the last bits empty.
fn random_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key: [u8; 24] = *b"AAAAAAAAAAAAAAAAAAAAAA==";
    for (digit, random) in key.iter_mut().zip(rand::random::<[u8; 21]>()) {
        *digit = DIGITS[usize::from(random % 64)];
    }
    HeaderValue::from_bytes(&key).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

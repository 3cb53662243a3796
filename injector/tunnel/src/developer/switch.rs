//! WebSockets on the developer's end.
//!
//! A request whose bodies carry both directions becomes an HTTP/1.1 upgrade at the developer's server (RFC 6455).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::local::{self, Connection, NoAnswer};
use crate::memory::Pinned;
use crate::stream::Notes;
use crate::switched::{self, Said};
use crate::{Body, BoxError, empty_body, headers};

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;

/// The developer's server's response to a request to switch protocols.
pub(super) enum Switch {
    /// It switched: the response for the relay, whose body is the server's direction.
    Done(Response<Body>),
    /// It sent any other response.
    Declined(Response<Incoming>, Connection),
}

/// Requests the switch from the developer's server.
pub(super) async fn through(
    connection: TcpStream,
    request: Request<Pinned<Incoming>>,
) -> Result<Switch, NoAnswer> {
    let (mut parts, client) = request.into_parts();
    parts.extensions.clear();
    parts
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts
        .headers
        .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    // A client that came over HTTP/2 has no key (RFC 8441 §5). The server needs one, and its answer to ours is not checked.
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
    let (switch, said) = switched::said(Arc::default());
    let passing = tokio::spawn(pass(client, switch, server, connection)).abort_handle();
    let notes = Notes {
        switched: response.headers_mut().remove(header::UPGRADE),
        ..Notes::default()
    };
    let talk = Talk {
        said,
        passing: Some(passing),
    };
    let mut answer = Response::new(talk.boxed_unsync());
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    headers::remove_hop_by_hop(answer.headers_mut());
    headers::remove_ours(answer.headers_mut());
    if ours {
        answer.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    }
    notes.write(answer.headers_mut());
    Ok(Switch::Done(answer))
}

/// Forwards the client's direction to its end.
async fn pass(
    mut client: Pinned<Incoming>,
    switch: switched::Switch,
    upgrade: OnUpgrade,
    _connection: Connection,
) {
    let Some(mut server) = switch.done(upgrade).await else {
        return;
    };
    while let Some(frame) = client.frame().await {
        let Ok(frame) = frame else { return };
        let data = frame.into_data().unwrap_or_default();
        if server.write_all(&data).await.is_err() || server.flush().await.is_err() {
            return;
        }
    }
    // An error means that the server has gone.
    let _ = server.shutdown().await;
}

/// The server's direction.
///
/// Its end also ends the client's direction, unless only the server's half was closed.
struct Talk {
    said: Said,
    passing: Option<AbortHandle>,
}

impl HttpBody for Talk {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.said).poll_frame(cx));
        if frame.is_none() {
            self.passing = None;
        }
        Poll::Ready(frame)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(passing) = &self.passing {
            passing.abort();
        }
    }
}

/// 16 random bytes in base64 (RFC 6455 §4.1).
///
/// 21 random digits, and one of the four that leave the last bits zero.
fn random_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key: [u8; 24] = *b"AAAAAAAAAAAAAAAAAAAAAA==";
    for (digit, random) in key.iter_mut().zip(rand::random::<[u8; 21]>()) {
        *digit = DIGITS[usize::from(random % 64)];
    }
    HeaderValue::from_bytes(&key).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

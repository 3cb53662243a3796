//! WebSockets on the relay: an HTTP/1.1 upgrade or an extended CONNECT from Envoy becomes an extended CONNECT on the tunnel (RFC 8441).
//! Knows nothing of what is said once the protocols are switched.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::forward::{pass_on, send};
use super::registry::{Stream, Tunnel};
use crate::tunnel::marks::{self, Unavailable};
use crate::tunnel::stream::Notes;
use crate::tunnel::{Body, empty_body, headers, join};

/// A client that wants to switch to WebSocket, and how it asked.
pub(super) struct Switching {
    client: OnUpgrade,
    by_connect: bool,
}

impl Switching {
    /// `None` when the request is an ordinary one. An upgrade to anything else is not passed on, which every client must take (RFC 9110 §7.8).
    pub(super) fn read(request: &mut Request<Incoming>) -> Option<Self> {
        let by_connect = request.method() == Method::CONNECT;
        let by_upgrade = request.version() == http::Version::HTTP_11
            && headers::wants_websocket(request.headers());
        (by_connect || by_upgrade).then(|| Self {
            client: hyper::upgrade::on(request),
            by_connect,
        })
    }
}

/// Asks the developer's server to switch, and joins the two connections when it does.
pub(super) async fn through(
    tunnel: &Arc<Tunnel>,
    mut parts: http::request::Parts,
    switching: Switching,
) -> Response<Body> {
    let Some(stream) = tunnel.claim() else {
        return Unavailable::Busy.answer();
    };
    parts.method = Method::CONNECT;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.extensions.clear();
    parts.extensions.insert(Protocol::from_static("websocket"));
    match send(tunnel, Request::from_parts(parts, empty_body())).await {
        Ok(response) => answer(response, tunnel, stream, switching),
        Err(failure) => failure.answer(false),
    }
}

fn answer(
    mut response: Response<Incoming>,
    tunnel: &Tunnel,
    stream: Stream,
    switching: Switching,
) -> Response<Body> {
    // Present when the developer's end answered 200, and only then.
    let Some(upgrade) = response.extensions_mut().remove::<OnUpgrade>() else {
        let (answer, notes) = pass_on(response, tunnel, stream);
        return declined(answer, notes.status, switching.by_connect);
    };
    let mut answer = Response::new(empty_body());
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    let notes = Notes::take(answer.headers_mut());
    marks::keep_valid(answer.status(), answer.headers_mut(), &tunnel.served_by);
    if !switching.by_connect {
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let websocket = HeaderValue::from_static("websocket");
        answer
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        answer
            .headers_mut()
            .insert(header::UPGRADE, notes.switched.unwrap_or(websocket));
    }
    tokio::spawn(async move {
        join(switching.client, upgrade).await;
        drop(stream);
    });
    answer
}

/// The developer's server did not switch: its own status, under which a 2xx must not look like a switch.
fn declined(
    mut answer: Response<Body>,
    status: Option<StatusCode>,
    by_connect: bool,
) -> Response<Body> {
    let Some(status) = status else {
        return answer;
    };
    if by_connect && status.is_success() {
        return marks::failed(
            "the developer's server answered without switching to WebSocket",
            false,
        );
    }
    *answer.status_mut() = status;
    answer
}

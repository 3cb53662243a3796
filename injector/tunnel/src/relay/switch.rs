//! WebSockets on the relay.
//!
//! An HTTP/1.1 upgrade or an extended CONNECT (RFC 8441) from Envoy becomes a special request inside the tunnel.
//! Its two bodies carry the two directions. Knows nothing of their contents.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::interval;

use super::exchange::{pass_on, send};
use super::registry::{Stream, Tunnel};
use super::shared::Shared;
use super::socket::Connection;
use crate::marks::{self, Unavailable};
use crate::memory::Pinned;
use crate::stream::{Notes, Purpose};
use crate::switched::{self, Switch};
use crate::tasks::Upload;
use crate::{Body, empty_body, headers};

/// How often to check an idle connection.
const LOOK: Duration = Duration::from_millis(500);
/// Idle checks before a server counts as gone, once its client has stopped sending.
///
/// WebSocket has no half-open connections.
const SILENT_LOOKS: u32 = 2;

/// A client that wants to switch to WebSocket, and how it asked.
pub(super) struct Switching {
    client: OnUpgrade,
    by_connect: bool,
}

impl Switching {
    /// `None` for an ordinary request.
    ///
    /// Ignores an upgrade to another protocol, which every client must accept (RFC 9110 §7.8).
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

/// Requests the switch from the developer's server, and connects both sides once it has switched.
pub(super) async fn through(
    shared: &Shared,
    tunnel: &Arc<Tunnel>,
    mut parts: http::request::Parts,
    switching: Switching,
    connection: &Arc<Connection>,
) -> Response<Body> {
    let Some(stream) = tunnel.claim() else {
        return Unavailable::Busy.answer();
    };
    parts.method = Method::GET;
    parts.uri = Purpose::Switch.uri(&parts.uri);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.extensions.clear();
    let upload = Arc::<Upload>::default();
    let (switch, said) = switched::said(Arc::clone(&upload));
    let said = tunnel.share().pin(said).boxed_unsync();
    let mut response = match send(tunnel, Request::from_parts(parts, said)).await {
        Ok(response) => response,
        Err(failure) => return failure.answer(false),
    };
    let Some(protocol) = Notes::take(response.headers_mut()).switched else {
        let by_connect = switching.by_connect;
        let answer = pass_on(response, tunnel, stream, &upload);
        return declined(answer, by_connect);
    };
    if shared.is_leaving() {
        // It would break off at once, and hyper writes `connection: close` beside `upgrade`, which strict clients do not accept as a switch.
        return Unavailable::Leaving.answer();
    }
    let (mut parts, body) = response.into_parts();
    marks::keep_valid(parts.status, &mut parts.headers, &tunnel.served_by);
    if !switching.by_connect {
        connection.switching();
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = HeaderValue::from_static("upgrade");
        parts.headers.insert(header::CONNECTION, upgrade);
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let talk = Talk {
        server: stream.pin(body),
        upload,
        _stream: stream,
    };
    tokio::spawn(talk.run(switching, switch, Arc::clone(connection)));
    Response::from_parts(parts, empty_body())
}

/// The response if the developer's server did not switch.
///
/// For an extended CONNECT, a 2xx of the server must not look like a switch.
fn declined(answer: Response<Body>, by_connect: bool) -> Response<Body> {
    if by_connect && answer.status().is_success() {
        return marks::failed(
            "the developer's server answered without switching to WebSocket",
            false,
        );
    }
    answer
}

/// The connected sides after a switch.
struct Talk {
    server: Pinned<Incoming>,
    upload: Arc<Upload>,
    _stream: Stream,
}

impl Talk {
    /// Ends with the client, even if its bytes are unread.
    async fn run(self, switching: Switching, switch: Switch, connection: Arc<Connection>) {
        let Self {
            server,
            upload,
            _stream,
        } = self;
        let Some(client) = switch.done(switching.client).await else {
            return upload.stop();
        };
        tokio::select! {
            () = pass(server, client, &upload) => {}
            () = connection.abandoned(), if !switching.by_connect => {}
        }
        upload.stop();
    }
}

/// Forwards the server's direction until both directions have ended or one side is gone.
async fn pass(mut server: Pinned<Incoming>, mut client: impl AsyncWrite + Unpin, upload: &Upload) {
    let mut look = interval(LOOK);
    let (mut is_over, mut silent) = (false, 0);
    while !(is_over && upload.has_ended()) {
        let passed = tokio::select! {
            frame = server.frame(), if !is_over => match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    silent = 0;
                    write(&mut client, data).await
                }
                Some(Ok(Err(_))) => Ok(()),
                Some(Err(_)) => return,
                None => {
                    is_over = true;
                    client.shutdown().await
                }
            },
            _ = look.tick() => {
                silent += u32::from(upload.has_ended());
                // Over HTTP/2, this detects that the client has reset its stream.
                client.flush().await
            }
        };
        if passed.is_err() || silent > SILENT_LOOKS {
            return;
        }
    }
}

async fn write(client: &mut (impl AsyncWrite + Unpin), data: Bytes) -> std::io::Result<()> {
    client.write_all(&data).await?;
    client.flush().await
}

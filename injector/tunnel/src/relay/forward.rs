//! Passes one request from Envoy through a tunnel, and the response back.
//!
//! Owns the responses to failures and their marks.
//! Knows nothing of how tunnels come and go.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Incoming;

use super::Shared;
use super::caller::{Caller, Peer};
use super::exchange::{Failure, pass_on, send};
use super::inbound::{self, Inbound};
use super::metrics::Counted;
use super::registry::{Stream, Tunnel};
use super::socket::{Answering, Connection};
use super::switch;
use crate::marks::Unavailable;
use crate::stream::{Notes, Purpose};
use crate::tasks::Upload;
use crate::{Address, Body, Guarded, empty_body, headers};

/// Answers one request on a data port.
pub(super) async fn handle(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    caller: Caller,
    mut request: Request<Incoming>,
) -> Result<Response<Guarded<Answering>>, Infallible> {
    let counted = Counted::start(&shared.metrics);
    let switching = switch::Switching::read(&mut request);
    let (mut parts, incoming) = request.into_parts();
    let peer = caller.identify(&mut parts.headers);
    let held_back = headers::expects_continue(&parts.headers);
    let chunked = !incoming.is_end_stream() && !parts.headers.contains_key(header::CONTENT_LENGTH);
    let upload = Arc::<Upload>::default();
    if incoming.is_end_stream() {
        upload.ended();
    }
    let version = parts.version;
    let mut response = match choose(&shared, &peer, &parts) {
        Err(reason) => {
            if version < Version::HTTP_2 && !held_back {
                inbound::skip(incoming, &upload).await;
            }
            reason.answer()
        }
        Ok((address, tunnel)) => {
            tunnel.count_request();
            prepare(&mut parts, chunked);
            match switching {
                Some(switching) => {
                    switch::through(&shared, &tunnel, parts, switching, &connection).await
                }
                None => {
                    let body = Inbound::new(incoming, version, &upload, tunnel.share());
                    let request = Request::from_parts(parts, body.boxed_unsync());
                    exchange(&shared, &address, tunnel, request, &upload, held_back).await
                }
            }
        }
    };
    counted.end(response.headers());
    if version < Version::HTTP_2 && !upload.has_ended() {
        // The rest of the body may stay unread: the next request must not follow it on this connection.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    if version < Version::HTTP_2 && response.status() == StatusCode::NOT_MODIFIED {
        // hyper writes the length of a body that is not sent (RFC 9110 section 8.6) only if the body does not know its own.
        response = response.map(|body| StreamBody::new(BodyStream::new(body)).boxed_unsync());
    }
    Ok(response.map(|body| Guarded {
        body,
        _guard: Answering(connection),
    }))
}

/// The tunnel for this request, or why there is none. Sends nothing.
fn choose(
    shared: &Shared,
    peer: &Peer,
    parts: &http::request::Parts,
) -> Result<(Address, Arc<Tunnel>), Unavailable> {
    let address = parts
        .headers
        .get(headers::ADDRESS)
        .and_then(|value| Address::parse(value.as_bytes()))
        .ok_or(Unavailable::NoAddress)?;
    let tunnel = shared
        .registry
        .find(&address)
        .ok_or(Unavailable::NoTunnel)?;
    if !peer.may_use(&tunnel) {
        return Err(Unavailable::Identity);
    }
    if tunnel.is_suspect() && !headers::is_safe(&parts.method) {
        return Err(Unavailable::Suspect);
    }
    let protocol = parts
        .extensions
        .get::<hyper::ext::Protocol>()
        .map(hyper::ext::Protocol::as_str);
    let is_websocket = protocol.is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
    if parts.method == Method::CONNECT && !is_websocket {
        return Err(Unavailable::Connect);
    }
    if !headers::fits(&parts.headers) {
        Err(Unavailable::HeadersTooLarge)
    } else {
        Ok((address, tunnel))
    }
}

/// Prepares the head for the tunnel.
///
/// Removes hop-by-hop headers, and puts the host into `host`, because a `Uri` cannot hold every `:authority`.
fn prepare(parts: &mut http::request::Parts, chunked: bool) {
    if let Some(host) = parts
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        parts.headers.insert(header::HOST, host);
    }
    headers::remove_hop_by_hop(&mut parts.headers);
    headers::remove_ours_from_request(&mut parts.headers);
    // The developer's end opens its connection before a 100 is sent. Other expectations are for the server to answer.
    if headers::expects_continue(&parts.headers) {
        parts.headers.remove(header::EXPECT);
    }
    let purpose = Purpose::Request {
        held: None,
        chunked,
    };
    parts.uri = purpose.uri(&parts.uri);
    parts.version = http::Version::HTTP_2;
}

async fn exchange(
    shared: &Shared,
    address: &Address,
    mut tunnel: Arc<Tunnel>,
    mut request: Request<Body>,
    upload: &Arc<Upload>,
    held_back: bool,
) -> Response<Body> {
    let grpc = headers::is_grpc(request.headers());
    loop {
        let Some(stream) = tunnel.claim() else {
            return Unavailable::Busy.answer();
        };
        let held = match held_back {
            true => match hold(&tunnel, &mut request).await {
                Ok(held) => Some(held),
                Err(answer) => return answer,
            },
            false => None,
        };
        let sent = tokio::select! {
            sent = send(&tunnel, request) => sent,
            () = shared.ended() => Err(Failure::Lost("the relay ended".to_owned())),
        };
        let unsent = match sent {
            Ok(response) => {
                drop(held);
                return pass_on(response, &tunnel, stream, upload);
            }
            Err(failure) => match failure {
                Failure::NotSent(request) => *request,
                other => return other.answer(grpc),
            },
        };
        // A reconnecting developer machine opens the new tunnel before it closes the old one, so that no request is lost between the two.
        match shared
            .registry
            .find(address)
            .filter(|newer| !newer.is(&tunnel))
        {
            Some(newer) => (tunnel, request) = (newer, unsent),
            None => return Unavailable::NotSent.answer(),
        }
    }
}

/// Makes the developer's end open its local connection first.
///
/// Only then is the body read, which makes hyper send the `100` that rules out a fallback. The returned response keeps that connection open until it is used.
async fn hold(
    tunnel: &Arc<Tunnel>,
    request: &mut Request<Body>,
) -> Result<(Response<Incoming>, Stream), Response<Body>> {
    let stream = tunnel.claim().ok_or_else(|| Unavailable::Busy.answer())?;
    let mut question = Request::new(empty_body());
    *question.uri_mut() = Purpose::Hold.uri(request.uri());
    // No part of the request itself is on its way yet, so any error here is harmless.
    let mut answer = send(tunnel, question)
        .await
        .map_err(|_| Unavailable::NotSent.answer())?;
    let Some(held) = Notes::take(answer.headers_mut()).held else {
        return Err(Unavailable::on(answer.headers())
            .unwrap_or(Unavailable::Other)
            .answer());
    };
    let purpose = match Purpose::of(request.uri()) {
        Some(Purpose::Request { chunked, .. }) => Purpose::Request {
            held: Some(held),
            chunked,
        },
        _ => return Err(Unavailable::Other.answer()),
    };
    *request.uri_mut() = purpose.uri(request.uri());
    Ok((answer, stream))
}

#[cfg(test)]
mod tests {
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::duplex;
    use tokio::sync::mpsc;

    use super::*;
    use crate::Secret;
    use crate::memory::{Memory, Share};
    use crate::protocol::Hello;
    use crate::relay::Options;

    fn share() -> Share {
        Memory::new(1 << 30).share()
    }

    /// A tunnel to a machine that answers everything, or one without a machine.
    async fn tunnel(secret: &Secret, alive: bool) -> Arc<Tunnel> {
        let (near, far) = duplex(64 * 1024);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        if alive {
            let service =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(empty_body())) });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(far), service));
        } else {
            drop(far);
            let _ = connection.await;
        }
        Tunnel::new(
            hello(secret),
            sender,
            100,
            share(),
            mpsc::channel(1).0,
            Arc::default(),
            u64::MAX,
        )
    }

    fn hello(secret: &Secret) -> Hello {
        Hello {
            secret: secret.clone(),
            name: "a".to_owned(),
            identity: None,
            instance: "1".to_owned(),
            replace: false,
        }
    }

    /// Sends a request while the tunnel breaks, many times over.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn broken_tunnel_answers_every_request() {
        for round in 0..300 {
            let (shared, secret) = (Arc::new(Shared::new(&Options::default())), Secret::random());
            let (near, far) = duplex(64 * 1024);
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
                    .await
                    .unwrap();
            let service =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(empty_body())) });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let server = tokio::spawn(server.serve_connection(TokioIo::new(far), service));
            let tunnel = Tunnel::new(
                hello(&secret),
                sender,
                100,
                share(),
                mpsc::channel(1).0,
                Arc::default(),
                u64::MAX,
            );
            let address = secret.address();
            let connection = tunnel.drive(connection);
            let callers = (0..8).map(|_| {
                let (shared, address) = (Arc::clone(&shared), address.clone());
                let tunnel = Arc::clone(&tunnel);
                tokio::spawn(async move {
                    while exchange(
                        &shared,
                        &address,
                        Arc::clone(&tunnel),
                        request(),
                        &Arc::default(),
                        false,
                    )
                    .await
                    .status()
                        == 200
                    {}
                })
            });
            let callers: Vec<_> = callers.collect();
            drop(tunnel);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            server.abort();
            let _ = connection.await;
            let all = async {
                for caller in callers {
                    caller.await.unwrap();
                }
            };
            let ended = tokio::time::timeout(std::time::Duration::from_secs(5), all).await;
            assert!(ended.is_ok(), "a request of round {round} has no answer");
        }
    }

    fn request() -> Request<Body> {
        let mut request = Request::new(empty_body());
        *request.uri_mut() = Purpose::Request {
            held: None,
            chunked: false,
        }
        .uri(&http::Uri::default());
        request
    }

    #[tokio::test]
    async fn returned_request_uses_the_next_tunnel() {
        let (shared, secret) = (Shared::new(&Options::default()), Secret::random());
        let address = secret.address();
        let old = tunnel(&secret, false).await;
        shared
            .registry
            .insert(address.clone(), tunnel(&secret, true).await);
        assert_eq!(
            exchange(&shared, &address, old, request(), &Arc::default(), false)
                .await
                .status(),
            200
        );
    }

    #[tokio::test]
    async fn returned_request_without_tunnel_is_unavailable() {
        let (shared, secret) = (Shared::new(&Options::default()), Secret::random());
        let address = secret.address();
        let old = tunnel(&secret, false).await;
        shared.registry.insert(address.clone(), Arc::clone(&old));
        let answer = exchange(&shared, &address, old, request(), &Arc::default(), false).await;
        assert_eq!(
            Unavailable::on(answer.headers()),
            Some(Unavailable::NotSent)
        );
    }
}

//! A small HTTP server for demo services: HTTP/1.1 and h2c on one port.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The response of a demo service.
pub type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Serves forever.
pub async fn serve(
    listener: TcpListener,
    answer: fn(Request<Incoming>) -> Answer,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: the next accept may work.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        connections.spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that disconnects is no error.
            let _ = server
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| ready(Ok::<_, Infallible>(answer(request)))),
                )
                .await;
        });
    }
}

/// A response with this content type.
pub fn typed<B>(kind: &'static str, body: B) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
{
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

//! The demo service "in the cluster". Every response names its sender.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use serde_json::json;
use tokio::time::{Interval, interval};

use super::demo::{Answer, typed};

/// Our own header, because Envoy overwrites `server`.
const SERVED_BY: &str = "x-orders";

/// The service's name in responses.
const NAME: &str = "v1 (cluster)";

/// Answers a request to the demo service.
///
/// Echoes a POST, streams `/events` forever, answers `/api/…` with JSON, and other paths with a line of text.
pub fn answer(request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let mut response = match (request.method(), path.as_str()) {
        (&Method::POST | &Method::PUT, _) => echo(request),
        (_, "/events") => typed(
            "text/event-stream",
            Events(interval(Duration::from_secs(1)), 0),
        ),
        (method, path) if path.starts_with("/api/") => typed(
            "application/json",
            Full::from(format!(
                "{}\n",
                json!({"service": "orders", "version": "v1", "answered_by": "cluster", "method": method.as_str(), "path": path})
            )),
        ),
        (method, path) => typed(
            "text/plain; charset=utf-8",
            Full::from(format!("orders {NAME}: {method} {path}\n")),
        ),
    };
    response
        .headers_mut()
        .insert(SERVED_BY, HeaderValue::from_static(NAME));
    response
}

fn echo(request: Request<Incoming>) -> Answer {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().boxed());
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// Numbered server-sent events until the client disconnects.
struct Events(Interval, u64);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_tick(context).map(|_| {
            self.1 += 1;
            let event = format!("data: orders {NAME}, event {}\n\n", self.1);
            Some(Ok(Frame::data(Bytes::from(event))))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::demo;
    use super::*;

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        tokio::spawn(demo::serve(listener, answer));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn every_answer_says_that_the_cluster_gave_it() {
        let answer = ask("GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains("x-orders: v1 (cluster)"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\norders v1 (cluster): GET /hello\n"),
            "{answer}"
        );
        let answer = ask("GET /api/version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(
            answer.contains("content-type: application/json"),
            "{answer}"
        );
        assert!(answer.contains(r#""answered_by":"cluster""#), "{answer}");
    }

    #[tokio::test]
    async fn a_post_comes_back_as_it_was_sent() {
        let answer = ask("POST /api/x HTTP/1.1\r\nhost: a\r\ncontent-type: a/b\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc").await;
        assert!(answer.contains("content-type: a/b"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    }
}

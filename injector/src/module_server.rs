//! Hands out one file, the filter, to the agents of sidecars. Knows nothing of the mesh: what is trusted is the digest that every WasmPlugin pins.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

/// Where the file is.
pub const PATH: &str = "/filter.wasm";

/// Timeout for a request's head, from its first moment on, and for a connection that is not used.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes: the least that hyper takes. An agent sends a few hundred. Unfinished heads are what a client can make this server keep.
const HEAD_LIMIT: usize = 8 << 10;

/// Timeout for a connection as a whole, so that a client that does not read does not keep its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections at a time, and those of one address among them; further ones are closed at once. An agent opens one for some milliseconds and tries again.
const MAX_CONNECTIONS: usize = 512;
const MAX_CONNECTIONS_PER_PEER: usize = 64;

/// How long running responses may take after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The file as it is handed out.
#[derive(Debug)]
pub struct Served {
    bytes: Bytes,
    sha256: String,
    etag: HeaderValue,
}

impl Served {
    /// A file with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let sha256 = intercept_manifest::digest::sha256(&bytes);
        let etag = HeaderValue::try_from(format!("\"sha256:{sha256}\""));
        Self {
            bytes: bytes.into(),
            sha256,
            etag: etag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
        }
    }

    /// Of its bytes, in lower-case hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            let mut refused = status(StatusCode::METHOD_NOT_ALLOWED);
            let allow = HeaderValue::from_static("GET");
            refused.headers_mut().insert(ALLOW, allow);
            return refused;
        }
        match request.uri().path() {
            PATH => self.file(request.headers().get(IF_NONE_MATCH)),
            "/healthz" => Response::new(Full::from("ok\n")),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    /// `*`, or a list of tags, weak ones included (RFC 9110 §13.1.2).
    fn file(&self, known: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let etag = self.etag.to_str().unwrap_or_default();
        let is_known = known
            .and_then(|known| known.to_str().ok())
            .is_some_and(|known| {
                let mut tags = known.split(',').map(str::trim);
                tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
            });
        let mut response = match is_known {
            true => status(StatusCode::NOT_MODIFIED),
            false => Response::new(Full::from(self.bytes.clone())),
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, self.etag.clone());
        // The file under this name changes with the next version of the image.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
        response
    }
}

/// Serves until `stopped`, then lets running answers end.
pub async fn serve(listener: TcpListener, served: Served, stopped: impl Future<Output = ()>) {
    let served = Arc::new(served);
    let places = Arc::new(Places::default());
    let running = GracefulShutdown::new();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Too many open files, most likely: waiting is all that helps.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = places.take(peer.ip()) else {
            continue;
        };
        let served = Arc::clone(&served);
        let service = service_fn(move |request| {
            let served = Arc::clone(&served);
            async move { Ok::<_, Infallible>(served.answer(&request)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = running.watch(connection);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
    let _ = tokio::time::timeout(GRACE, running.shutdown()).await;
}

/// The connections that are open, by address.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    peer: IpAddr,
}

impl Places {
    /// `None` where there are too many already.
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&peer).copied().unwrap_or(0);
        if all >= MAX_CONNECTIONS || own >= MAX_CONNECTIONS_PER_PEER {
            return None;
        }
        open.insert(peer, own + 1);
        Some(Place {
            places: Arc::clone(self),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.peer) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(open.remove(&self.peer)),
        }
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn ask(method: &str, path: &str, known: Option<&str>) -> Response<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known);
        }
        Served::new(b"abc".to_vec()).answer(&request.body(()).unwrap())
    }

    const ETAG_OF_ABC: &str =
        "\"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"";

    #[tokio::test]
    async fn the_file_comes_with_its_digest() {
        let response = ask("GET", "/filter.wasm", None);
        assert_eq!(response.headers()[ETAG], ETAG_OF_ABC);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/wasm");
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "abc"
        );
    }

    #[test]
    fn whoever_has_the_file_is_not_sent_it_again() {
        for known in [ETAG_OF_ABC, "*", &format!("\"x\", W/{ETAG_OF_ABC}")] {
            assert_eq!(
                ask("GET", "/filter.wasm", Some(known)).status(),
                304,
                "{known}"
            );
        }
        assert_eq!(ask("GET", "/filter.wasm", Some("\"x\"")).status(), 200);
    }

    #[test]
    fn there_is_nothing_else_to_get_and_nothing_to_change() {
        assert_eq!(ask("GET", "/healthz", None).status(), 200);
        assert_eq!(ask("GET", "/../etc/passwd", None).status(), 404);
        assert_eq!(ask("GET", "/", None).status(), 404);
        let refused = ask("POST", "/filter.wasm", None);
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[ALLOW]),
            (405, &HeaderValue::from_static("GET"))
        );
    }

    #[tokio::test]
    async fn it_serves_until_it_is_told_to_stop() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop_tx, stop_rx) = tokio::sync::oneshot::channel::<()>();
        let served = Served::new(vec![7; 300_000]);
        let server = tokio::spawn(serve(listener, served, async move {
            let _ = stop_rx.await;
        }));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /filter.wasm HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&[7; 300_000]));
        // A connection that says nothing does not keep it.
        let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
        stop_tx.send(()).unwrap();
        tokio::time::timeout(GRACE * 2, server)
            .await
            .unwrap()
            .unwrap();
    }

    #[test]
    fn connections_are_bounded_per_peer() {
        let places = Arc::new(Places::default());
        let peer = |number: u8| IpAddr::from([10, 0, 0, number]);
        let take = |number| places.take(peer(number));
        let mut taken: Vec<Place> = (0..MAX_CONNECTIONS_PER_PEER)
            .filter_map(|_| take(1))
            .collect();
        assert_eq!(taken.len(), MAX_CONNECTIONS_PER_PEER);
        assert!(take(1).is_none() && take(2).is_some());
        taken.pop();
        taken.extend(take(1));
        for number in 2..=20 {
            taken.extend((0..MAX_CONNECTIONS).map_while(|_| take(number)));
        }
        assert_eq!(taken.len(), MAX_CONNECTIONS);
        assert!(take(21).is_none());
        drop(taken);
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn head_that_trickles_in_times_out() {
        use tokio::io::AsyncWriteExt;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Served::new(vec![7; 10]);
        tokio::spawn(serve(listener, served, std::future::pending()));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let begun = tokio::time::Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        while client.write_all(b"a").await.is_ok() {
            assert!(begun.elapsed() < HEAD_TIMEOUT * 3);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

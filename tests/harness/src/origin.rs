//! A developer's server on a plain socket.
//!
//! Records each request byte by byte, and responds with bytes that no HTTP library would write.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The request line and the header lines, in lower case.
    pub head: String,
    /// The bytes after the head, including chunk sizes and trailers.
    pub body: String,
    /// Was the body complete before the connection ended?
    pub whole: bool,
}

impl Received {
    /// The value of a header line; `None` when there is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// The values of all lines of a header, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(move |line| line.0 == name).map(|line| line.1)
    }
}

/// A running server. Takes no more connections once dropped.
#[derive(Debug)]
pub struct Origin {
    /// Its port on 127.0.0.1.
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// A server that reads a whole request, responds with these bytes and closes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                let request = receive(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                request
            }
        })
        .await
    }

    /// A server that handles every connection with `serve`, and records the returned request.
    pub async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Received> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::<Mutex<Vec<_>>>::default();
        let kept = Arc::clone(&received);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (serving, kept) = (serve(stream), Arc::clone(&kept));
                tokio::spawn(async move {
                    let request = serving.await;
                    kept.lock().unwrap().push(request);
                });
            }
        });
        Self {
            port,
            received,
            accepting,
        }
    }

    /// All requests whose connection has ended, in that order.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The only request so far, once its connection has ended.
    pub async fn only(&self) -> Received {
        crate::tunnel::eventually("a request", async || !self.received().is_empty()).await;
        let mut all = self.received();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads one request to its end or the end of the connection.
pub async fn receive(stream: &mut TcpStream) -> Received {
    let mut bytes = Vec::new();
    let (mut head_end, mut whole) = (None, false);
    while !whole {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
        head_end = head_end.or_else(|| find(&bytes, b"\r\n\r\n").map(|at| at + 4));
        whole = head_end.is_some_and(|end| is_whole(&lower(&bytes[..end]), &bytes[end..]));
    }
    let (head, body) = bytes.split_at(head_end.unwrap_or(bytes.len()));
    Received {
        head: lower(head),
        body: String::from_utf8_lossy(body).into_owned(),
        whole,
    }
}

fn is_whole(head: &str, body: &[u8]) -> bool {
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let last = body.starts_with(b"0\r\n") || find(body, b"\r\n0\r\n").is_some();
        return last && body.ends_with(b"\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

fn lower(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_lowercase()
}

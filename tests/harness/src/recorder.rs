//! An app that records every byte received, to compare two runs as they were on the wire.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running recorder: responds 200 without a body, over HTTP/1.1 or h2c.
#[derive(Debug)]
pub struct Recorder {
    addr: SocketAddr,
    bytes: Arc<Mutex<Vec<u8>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    /// Starts a recorder on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&bytes);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Tee {
                    stream,
                    bytes: Arc::clone(&recorded),
                }));
            }
        });
        Self {
            addr,
            bytes,
            accepting,
        }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All bytes so far, of all connections, in the order in which they were read.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no panic").clone()
    }

    /// The frames of an h2 connection that carry requests (DATA, HEADERS, CONTINUATION).
    ///
    /// Flags and payload, in order.
    ///
    /// Leaves out settings and window updates, which depend on timing (RFC 9113 section 4.1).
    pub fn request_frames(&self) -> Vec<(u8, Bytes)> {
        const PREFACE: usize = 24;
        let recorded = Bytes::from(self.bytes());
        let mut rest = recorded.slice(PREFACE.min(recorded.len())..);
        let mut frames = Vec::new();
        while rest.len() >= 9 {
            let header = rest.split_to(9);
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let payload = rest.split_to(length.min(rest.len()));
            if matches!(header[3], 0 | 1 | 9) {
                frames.push((header[3], payload));
            }
        }
        frames
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: Tee) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
        request.into_body().collect().await?;
        Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().max_headers(1_000).max_buf_size(1 << 20);
    builder.http2().max_header_list_size(1 << 20);
    // An error is a peer that disconnected.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A stream that copies what is read from it.
struct Tee {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tee {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        self.bytes.lock().expect("no panic").extend_from_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tee {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

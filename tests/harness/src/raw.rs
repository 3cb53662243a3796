//! A client that sends raw bytes, for requests that no HTTP library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::endpoint::Endpoint;
use crate::wait;

/// Sends the bytes and reads until the other side closes: they should contain `connection: close`.
pub async fn exchange(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.expect("a listener");
    // The other side may respond and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// POSTs `hello` with that header line: first the head, then the body after a `100 Continue`.
///
/// Returns what was received.
pub async fn expect_100(endpoint: impl Into<Endpoint>, header: &str) -> String {
    let endpoint = endpoint.into();
    let host = endpoint.authority();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\n{header}\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    let mut stream = endpoint.open().await.expect("a listener");
    stream.write_all(head.as_bytes()).await.expect("open");
    let mut interim = [0; 25];
    let reading = stream.read_exact(&mut interim);
    let read = tokio::time::timeout(wait::DEADLINE, reading).await;
    read.expect("told in time").expect("open");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

/// The status of an HTTP/1.1 response; `None` without a response.
pub fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line)
        .ok()?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

/// Does the response contain that text?
pub fn contains(answer: &[u8], text: &str) -> bool {
    answer
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// The same without `await`, for the drop of a guard. An error yields fewer bytes.
pub fn exchange_blocking(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut answer = Vec::new();
    if let Ok(mut stream) = std::net::TcpStream::connect(addr) {
        let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(2)));
        let _ = stream.write_all(request);
        let _ = stream.read_to_end(&mut answer);
    }
    answer
}

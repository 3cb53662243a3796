//! Is a developer machine there? Asked of the relay's control port.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// A relay that takes longer is as good as away.
const TIMEOUT: Duration = Duration::from_secs(1);

/// An answer is some hundred bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What is known of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// The developer machine is connected.
    Up,
    /// It is not; requests that match are answered by the in-cluster version.
    Away,
    /// The relay did not say.
    Unknown,
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Away => "away",
            Self::Unknown => "unknown (the relay does not answer)",
        })
    }
}

/// Asks the relay whether the tunnel of this address is up.
pub async fn ask(control: SocketAddr, address: &str) -> Presence {
    match tokio::time::timeout(TIMEOUT, answer(control, address)).await {
        Ok(Some(Answer { up: true })) => Presence::Up,
        Ok(Some(Answer { up: false })) => Presence::Away,
        _ => Presence::Unknown,
    }
}

/// What the relay says, as far as it matters here.
#[derive(Deserialize)]
struct Answer {
    up: bool,
}

async fn answer(control: SocketAddr, address: &str) -> Option<Answer> {
    let stream = TcpStream::connect(control).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let request = Request::get(format!("/tunnels/{address}"))
        .header("host", control.to_string())
        .body(Empty::<Bytes>::new())
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    let body = Limited::new(response.into_body(), ANSWER_LIMIT)
        .collect()
        .await
        .ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

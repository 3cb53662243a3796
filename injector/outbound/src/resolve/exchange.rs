//! One question to the resolvers: by UDP, and by TCP where the answer is too long for that (RFC 7766).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::message;
use super::transport::{by_tcp, by_udp};

/// How long a resolver may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all are asked.
const ROUNDS: usize = 2;

/// The answer, under the question's own id; `None` where there is none.
pub(super) async fn exchange(servers: &[SocketAddr], query: &[u8]) -> Option<Bytes> {
    let (query, id) = message::with_id(query, rand::random())?;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask(*server, &query)).await {
            let (answer, _) = message::with_id(&answer, id)?;
            return Some(answer.into());
        }
    }
    None
}

async fn ask(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let is_answer = |answer: &[u8]| message::answers(answer, query);
    let answer = by_udp(server, query, is_answer).await?;
    if !message::is_truncated(&answer) {
        return Ok(answer);
    }
    let answer = by_tcp(server, query).await?;
    match is_answer(&answer) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

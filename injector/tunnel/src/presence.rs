//! Asks a relay whether a developer machine is connected, and whether it has running requests.

use std::time::Duration;
use std::{fmt, io};

use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::BoxError;
use crate::developer::Connect;
use crate::http_json::JsonClient;
use crate::relay_end::RelayEnd;

/// Timeout of the relay's answers.
///
/// A port-forward needs several round trips before the first question.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long the upstream cluster stays after requests were cut off.
///
/// Envoy then picks one of its hosts for the second attempt.
///
/// With Envoy and relay on one busy machine 20 ms were enough for 64 requests, and 5 ms were not (`sandbox_leaving`); the rest is for distant relays.
pub const HANDOVER: Duration = Duration::from_secs(1);

/// The state of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// The developer machine is connected.
    Up,
    /// The developer machine is not connected; the in-cluster version answers matching requests.
    Away,
    /// The relay did not answer.
    Unknown,
}

impl Presence {
    /// Combines the answers of two relays: a tunnel ends at one of them.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Up, _) | (_, Self::Up) => Self::Up,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Away, Self::Away) => Self::Away,
        }
    }
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
pub async fn ask(relay: &RelayEnd, address: &str) -> Presence {
    let answers = ask_all(relay, &[address]).await;
    answers.first().copied().unwrap_or(Presence::Unknown)
}

/// Whether a tunnel has running requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Some requests are running.
    UnderWay,
    /// No requests are running, or there is no such tunnel.
    None,
    /// The relay did not answer.
    Unknown,
}

/// Asks about several addresses on one connection. Returns an answer for each, in order.
///
/// Each question has its own timeout; there is no limit for all of them.
pub async fn traffic(relay: &RelayEnd, addresses: &[&str]) -> Vec<Traffic> {
    let mut answers = Vec::new();
    let asked = ask_in_turn(relay, addresses, &mut answers).await;
    let mut traffic: Vec<Traffic> = answers.iter().map(read_traffic).collect();
    let is_down = asked.is_err_and(|error| is_refused(&error));
    let rest = match is_down {
        true => Traffic::None,
        false => Traffic::Unknown,
    };
    traffic.resize(addresses.len(), rest);
    traffic
}

fn read_traffic(answer: &Value) -> Traffic {
    match (answer["up"].as_bool(), answer["under_way"].as_u64()) {
        // Also on a tunnel that is being closed.
        (Some(_), Some(1..)) => Traffic::UnderWay,
        (Some(false), _) | (Some(true), Some(0)) => Traffic::None,
        // A relay of an older version sends no count.
        _ => Traffic::Unknown,
    }
}

/// Was the connection refused?
fn is_refused(error: &BoxError) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Asks about several addresses on one connection. Returns an answer for each, in order.
pub async fn ask_all(relay: &RelayEnd, addresses: &[&str]) -> Vec<Presence> {
    let mut answers = Vec::new();
    let _ = timeout(TIMEOUT, ask_in_turn(relay, addresses, &mut answers)).await;
    let up = answers.iter().map(|answer| answer["up"].as_bool());
    let mut presences: Vec<Presence> = up
        .map(|up| match up {
            Some(true) => Presence::Up,
            Some(false) => Presence::Away,
            None => Presence::Unknown,
        })
        .collect();
    presences.resize(addresses.len(), Presence::Unknown);
    presences
}

/// Stops at the first question that times out.
async fn ask_in_turn(
    relay: &RelayEnd,
    addresses: &[&str],
    answers: &mut Vec<Value>,
) -> Result<(), BoxError> {
    let connecting = async {
        let stream = relay.connect().await?;
        Ok::<_, BoxError>(JsonClient::new(stream).await?)
    };
    let mut client = timeout(TIMEOUT, connecting).await??;
    for address in addresses {
        let path = format!("/tunnels/{address}");
        answers.push(timeout(TIMEOUT, client.get(&path)).await??);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::developer::{Connecting, Stream};

    /// A relay that takes two seconds for each of these answers, and then sends no more.
    #[derive(Clone, Default)]
    struct Slow {
        answers: Arc<Mutex<VecDeque<&'static str>>>,
        connections: Arc<AtomicUsize>,
        is_down: bool,
    }

    impl Connect for Slow {
        fn connect(&self) -> Connecting<'_> {
            self.connections.fetch_add(1, Ordering::SeqCst);
            Box::pin(async {
                if self.is_down {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (near, far) = duplex(4_096);
                tokio::spawn(serve(far, Arc::clone(&self.answers)));
                Ok(Box::new(near) as Box<dyn Stream>)
            })
        }
    }

    async fn serve(mut stream: DuplexStream, answers: Arc<Mutex<VecDeque<&'static str>>>) {
        let mut head = [0; 4_096];
        while let Ok(1..) = stream.read(&mut head).await {
            let next = answers.lock().expect("whole").pop_front();
            let Some(body) = next else {
                return std::future::pending().await;
            };
            tokio::time::sleep(Duration::from_secs(2)).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let answer = format!("{head}{body}");
            stream.write_all(answer.as_bytes()).await.expect("it reads");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn relay_reports_traffic_of_all_tunnels() {
        let slow = Slow::default();
        *slow.answers.lock().expect("whole") = VecDeque::from([
            r#"{"up": false}"#,
            r#"{"up": true, "under_way": 0}"#,
            r#"{"up": true, "under_way": 2}"#,
            r#"{"up": false, "under_way": 1}"#,
            r#"{"up": true}"#,
        ]);
        let relay = RelayEnd::new("slow", "", slow.clone());
        let told = traffic(&relay, &["a", "b", "c", "d", "e", "f", "g"]).await;
        let expected = [
            Traffic::None,
            Traffic::None,
            Traffic::UnderWay,
            Traffic::UnderWay,
            Traffic::Unknown,
            Traffic::Unknown,
            Traffic::Unknown,
        ];
        assert_eq!(told, expected);
        assert_eq!(slow.connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_traffic_without_a_relay() {
        let down = Slow {
            is_down: true,
            ..Slow::default()
        };
        let relay = RelayEnd::new("down", "", down);
        assert_eq!(traffic(&relay, &["a", "b"]).await, [Traffic::None; 2]);
        assert_eq!(ask_all(&relay, &["a"]).await, [Presence::Unknown]);
    }
}

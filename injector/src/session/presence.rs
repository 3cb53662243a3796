//! Is a developer machine there? Asked of the relay's control port.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::relay::RelayEnd;
use crate::ask::Asked;
use crate::tunnel::developer::Connect;

/// A relay that takes longer is as good as away. A port-forward needs several round trips before the first question.
const TIMEOUT: Duration = Duration::from_secs(3);

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

impl Presence {
    /// What is known from this relay and from another one: a tunnel ends at one of them.
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

/// Is a request under way through the tunnel of this address? A relay of an older version does not say.
pub async fn is_busy(relay: &RelayEnd, address: &str) -> bool {
    let asking = async {
        let mut asked = Asked::over(relay.connect().await?).await?;
        asked.get(&format!("/tunnels/{address}")).await
    };
    match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(Ok(answer)) => answer["under_way"].as_u64() > Some(0),
        _ => false,
    }
}

/// Asks about several addresses on one connection; an answer each, in the same order.
pub async fn ask_all(relay: &RelayEnd, addresses: &[&str]) -> Vec<Presence> {
    let mut answers = Vec::new();
    let _ = tokio::time::timeout(TIMEOUT, ask_in_turn(relay, addresses, &mut answers)).await;
    answers.resize(addresses.len(), Presence::Unknown);
    answers
}

async fn ask_in_turn(
    relay: &RelayEnd,
    addresses: &[&str],
    answers: &mut Vec<Presence>,
) -> anyhow::Result<()> {
    let mut asked = Asked::over(relay.connect().await?).await?;
    for address in addresses {
        let answer = asked.get(&format!("/tunnels/{address}")).await?;
        answers.push(match answer["up"].as_bool() {
            Some(true) => Presence::Up,
            Some(false) => Presence::Away,
            None => Presence::Unknown,
        });
    }
    Ok(())
}

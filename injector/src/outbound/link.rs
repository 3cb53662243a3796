//! A running command's connection into the cluster, with the ports that lead there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use intercept_outbound::client::{Client, Connect, Event, Stream};
use intercept_outbound::{Hello, Proof, Tempo};
use intercept_tunnel::Secret;
use intercept_tunnel::developer::Connect as _;
use intercept_tunnel::relay_end::RelayEnd;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::forwards::Forwards;
use crate::error::{CliError, Result};

/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that wait to be read.
const EVENTS: usize = 64;
/// Destinations of which it is remembered that they were refused.
const TOLD: usize = 256;

/// A connection into the cluster. It ends when it is dropped, and with it all ports.
#[derive(Debug)]
pub struct Link {
    events: mpsc::Receiver<Event>,
    client: Client,
    _forwards: JoinSet<()>,
    is_away: bool,
    /// Destinations that were refused, and said so.
    told: BTreeSet<String>,
}

/// Something that people should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// As a note.
    Note(String),
    /// As a warning.
    Warning(String),
}

impl Link {
    /// Connects, and begins to pass on what comes to the ports. `name`: the intercept's.
    ///
    /// # Errors
    /// Where the cluster's end cannot be reached, or refuses.
    pub async fn open(
        end: &RelayEnd,
        secret: &Secret,
        name: &str,
        forwards: Forwards,
    ) -> Result<Self> {
        let hello = Hello {
            proof: Proof(secret.expose()),
            name: name.to_owned(),
            instance: uuid::Uuid::new_v4().to_string(),
        };
        let (events_tx, mut events) = mpsc::channel(EVENTS);
        let client = Client::start(hello, connect(end), Tempo::default(), events_tx);
        first_up(&mut events).await.map_err(|reason| {
            CliError::failed(
                format_args!("outbound connections: {end}: {reason}"),
                end.hint(),
            )
        })?;
        Ok(Self {
            events,
            _forwards: forwards.run(&client),
            client,
            is_away: false,
            told: BTreeSet::new(),
        })
    }

    /// Opens connections into the cluster.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next line to be read. Waits for ever where there is none.
    pub async fn next(&mut self) -> Line {
        loop {
            let Some(event) = self.events.recv().await else {
                return std::future::pending().await;
            };
            if let Some(line) = self.line(event) {
                return line;
            }
        }
    }

    fn line(&mut self, event: Event) -> Option<Line> {
        match event {
            Event::Up => std::mem::take(&mut self.is_away)
                .then(|| Line::Note("connections into the cluster are back".to_owned())),
            // Once per absence.
            Event::Away { reason, .. } => {
                (!std::mem::replace(&mut self.is_away, true)).then(|| {
                    Line::Warning(format!("connections into the cluster are away ({reason})"))
                })
            }
            Event::Rejected(rejection) => Some(Line::Warning(format!(
                "no more connections into the cluster: {}",
                rejection.reason
            ))),
            // Reported once, however often a program retries.
            Event::Denied {
                destination,
                reason,
            } => (self.told.len() < TOLD && self.told.insert(destination.clone()))
                .then(|| Line::Warning(format!("{destination}: refused in the cluster: {reason}"))),
        }
    }
}

/// The reason of the last attempt, where none succeeds.
async fn first_up(events: &mut mpsc::Receiver<Event>) -> Result<(), String> {
    let mut last = "no answer".to_owned();
    let up = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Up => return Ok(()),
                Event::Away { reason, .. } => last = reason,
                Event::Rejected(rejection) => return Err(rejection.reason),
                Event::Denied { .. } => {}
            }
        }
        Err("closed".to_owned())
    };
    let result = timeout(PATIENCE, up).await;
    result.unwrap_or(Err(last))
}

fn connect(end: &RelayEnd) -> Connect {
    let end = end.clone();
    Arc::new(move || {
        let end = end.clone();
        Box::pin(async move {
            let stream = end.connect().await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_destination_is_told_of_once() {
        let (events_tx, events) = mpsc::channel(4);
        let nowhere = RelayEnd::tcp(([127, 0, 0, 1], 1).into());
        let hello = Hello {
            proof: Proof(String::new()),
            name: String::new(),
            instance: String::new(),
        };
        let (own_tx, _own) = mpsc::channel(1);
        let mut link = Link {
            events,
            client: Client::start(hello, connect(&nowhere), Tempo::default(), own_tx),
            _forwards: JoinSet::new(),
            is_away: false,
            told: BTreeSet::new(),
        };
        let denied = |destination: &str| Event::Denied {
            destination: destination.to_owned(),
            reason: "why".to_owned(),
        };
        for event in [denied("a:1"), denied("a:1"), denied("b:1"), Event::Up] {
            events_tx.send(event).await.expect("read");
        }
        let line = |destination: &str| {
            Line::Warning(format!("{destination}: refused in the cluster: why"))
        };
        assert_eq!(link.next().await, line("a:1"));
        assert_eq!(link.next().await, line("b:1"));
    }
}

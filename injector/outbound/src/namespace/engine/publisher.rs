//! Publishes what listens in the namespace: at the same port of the host's 127.0.0.1, and nowhere else.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::inside::Inside;
use super::listeners::listeners;
use super::published::Published;
use super::splice::Pipes;
use super::transfer::transfer_plain;
use crate::namespace::event::{Event, Events};

/// A developer who starts a server and opens its page takes longer.
const PERIOD: Duration = Duration::from_millis(250);

/// How long to wait where the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Which listeners are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// All of them.
    All,
    /// Those at these ports.
    Only(BTreeSet<u16>),
    /// None.
    None,
}

impl Publish {
    fn includes(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(ports) => ports.contains(&port),
            Self::None => false,
        }
    }
}

/// Publishes the listeners of the namespace that the helper is in.
#[derive(Debug)]
pub struct Publisher {
    /// The helper's process.
    pub helper: u32,
    /// Which listeners.
    pub publish: Publish,
    /// The port of the namespace's own transparent listeners.
    pub own_port: u16,
    /// The way to them.
    pub inside: Inside,
    /// The ports that are taken by this.
    pub published: Arc<Published>,
    /// For bulk.
    pub pipes: Pipes,
    /// Told of each port.
    pub events: Events,
}

impl Publisher {
    /// Runs for ever.
    pub async fn run(self) {
        // A port that could not be bound is tried again only once its listener has gone and come back.
        let mut known: HashMap<u16, Option<AbortHandle>> = HashMap::new();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut now = match listeners(self.helper).await {
                Ok(now) => now,
                // It has ended, and with it the way in.
                Err(error) if is_gone(&error) => BTreeSet::new(),
                Err(_) => continue,
            };
            now.retain(|port| *port != self.own_port && self.publish.includes(*port));
            known.retain(|port, task| {
                let stays = now.contains(port);
                if let (false, Some(task)) = (stays, task) {
                    self.published.remove(*port);
                    task.abort();
                }
                stays
            });
            for port in now {
                if let Entry::Vacant(entry) = known.entry(port) {
                    entry.insert(self.publish(port).await);
                }
            }
        }
    }

    async fn publish(&self, port: u16) -> Option<AbortHandle> {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => {
                self.published.add(port);
                self.events.tell(Event::Published(port));
                let (inside, pipes) = (self.inside.clone(), self.pipes.clone());
                let task = tokio::spawn(serve(listener, port, inside, pipes));
                Some(task.abort_handle())
            }
            Err(error) => {
                self.events.tell(Event::NotPublished(port, error));
                None
            }
        }
    }
}

/// Does /proc not have the process any more, or only what its parent has not asked for yet?
fn is_gone(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
}

async fn serve(listener: TcpListener, port: u16, inside: Inside, pipes: Pipes) {
    loop {
        let Ok((caller, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let (inside, pipes) = (inside.clone(), pipes.clone());
        tokio::spawn(async move { connect(caller, port, &inside, &pipes).await });
    }
}

async fn connect(caller: TcpStream, port: u16, inside: &Inside, pipes: &Pipes) -> io::Result<()> {
    match inside.connect(port).await {
        Ok(program) => {
            transfer_plain(caller, program, pipes).await;
            Ok(())
        }
        // The listener has gone a moment ago.
        Err(_) => caller.set_zero_linger(),
    }
}

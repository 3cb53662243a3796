//! Requests that run the whole time.
//!
//! A POST at a breakpoint, event streams, WebSockets and gRPC streams, both matched and unmatched.

use std::sync::Arc;
use std::time::Duration;

use harness::app::{Do, GO};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::contract::{Kind, Verdict};
use crate::requests::{Fired, Shot, Until, fire};
use crate::world::{Lane, Person, World};

/// Pause between two messages of a stream.
const PAUSE: Duration = Duration::from_secs(1);

/// All long-running requests.
#[derive(Debug)]
pub struct Long {
    requests: JoinSet<(String, Verdict, Fired)>,
    end: watch::Sender<bool>,
}

impl Long {
    pub fn new() -> Self {
        Self {
            requests: JoinSet::new(),
            end: watch::channel(false).0,
        }
    }

    /// Opens `person`'s streams of that lane, or unmatched ones, and the breakpoint.
    pub fn open(&mut self, world: &Arc<World>, lane: &Arc<Lane>, person: Option<&Arc<Person>>) {
        let streams = [
            (Kind::Events, Do::Ticks(PAUSE.as_millis() as u64)),
            (Kind::Socket, Do::Tell),
            (Kind::Talk, Do::Tell),
        ];
        let breakpoint = person.map(|person| (Kind::Post, Do::WaitAt(person.name)));
        for (kind, to) in streams.into_iter().chain(breakpoint) {
            if person.is_some_and(|person| !person.takes(kind)) {
                continue;
            }
            let shot = Shot {
                until: Until::Told(self.end.subscribe()),
                pause: PAUSE,
                limit: Duration::from_secs(48 * 3_600),
                ..Shot::new(kind, to)
            };
            let (world, lane, person) = (Arc::clone(world), Arc::clone(lane), person.cloned());
            self.requests.spawn(async move {
                let fired = fire(&world, &lane, person.as_deref(), shot).await;
                let whose = if person.is_some() {
                    "matched"
                } else {
                    "unmatched"
                };
                let what = format!("{}, {whose}, {}", kind.name(), lane.name);
                let wanted = match person {
                    Some(_) => Verdict::Developer,
                    None => Verdict::Cluster,
                };
                (what, wanted, fired)
            });
        }
    }

    /// Ends them: the streams by their clients, the POST by its server.
    ///
    /// Each must have lasted, and must be answered by the right app.
    pub async fn end(self, world: &World, holders: &[Arc<Person>]) {
        self.end.send_replace(true);
        for holder in holders {
            holder.server.say(GO);
        }
        let ended = tokio::time::timeout(Duration::from_secs(60), self.requests.join_all()).await;
        let Ok(ended) = ended else {
            return world.deviates("a long request did not end", "60 s after it was told to");
        };
        let lasted = world.began.elapsed();
        for (what, wanted, fired) in ended {
            let minutes = fired.took.as_secs_f64() / 60.0;
            let stream = match fired.messages {
                0 => String::new(),
                messages => format!(
                    ", {messages} messages, at most {:.2} s between two",
                    fired.longest_gap.as_secs_f64()
                ),
            };
            let line = format!("{what}: {minutes:.1} minutes{stream}: {:?}", fired.verdict);
            if fired.verdict != wanted || fired.took + Duration::from_secs(60) < lasted {
                world.deviates("a long request did not last", &line);
            }
            world.tally.lock().expect("no panic").long.push(line);
        }
    }
}

//! Many requests at a bounded concurrency, every outcome counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::client::{Ask, Client};

/// What became of a load.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Answers in 200–299, by request id: who made them.
    pub answers: BTreeMap<usize, String>,
    /// Everything else, as the client saw it, by request id.
    pub errors: BTreeMap<usize, String>,
}

impl Outcome {
    /// How many were answered well, by whom.
    pub fn by(&self) -> BTreeMap<&str, usize> {
        let mut by = BTreeMap::new();
        for name in self.answers.values() {
            *by.entry(name.as_str()).or_default() += 1;
        }
        by
    }

    /// How many that one answered well.
    pub fn answered_by(&self, name: &str) -> usize {
        self.by().get(name).copied().unwrap_or_default()
    }

    /// Panics with the errors if there is any.
    pub fn assert_no_errors(&self) {
        let first: Vec<_> = self.errors.iter().take(5).collect();
        assert!(
            self.errors.is_empty(),
            "{} client errors beside {:?}, among them {first:?}",
            self.errors.len(),
            self.by()
        );
    }
}

/// Sends `count` requests over `workers` workers. `ask` makes the request of a number, which is its `test-id` as well.
pub async fn run(
    client: &Client,
    workers: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Outcome {
    Load::start(client, workers, count, ask).finish().await
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<Outcome>,
    stopped: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Load {
    /// Starts one; `usize::MAX` requests go on until [`Load::stop`].
    pub fn start(
        client: &Client,
        workers: usize,
        count: usize,
        ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
    ) -> Self {
        let (stopped, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let ask = Arc::new(ask);
        let mut set = JoinSet::new();
        for _ in 0..workers {
            let (client, ask) = (client.clone(), Arc::clone(&ask));
            let (stopped, sent) = (Arc::clone(&stopped), Arc::clone(&sent));
            set.spawn(async move {
                let mut outcome = Outcome::default();
                while !stopped.load(Ordering::SeqCst) {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        break;
                    }
                    outcome.add(number, client.ask(ask(number).id(number)).await);
                }
                outcome
            });
        }
        Self {
            workers: set,
            stopped,
            sent,
        }
    }

    /// How many requests were begun.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// Lets an endless load begin no further request; then as [`Load::finish`].
    pub async fn stop(self) -> Outcome {
        self.stopped.store(true, Ordering::SeqCst);
        self.finish().await
    }

    /// Waits for the last answer.
    pub async fn finish(self) -> Outcome {
        let outcomes = self.workers.join_all().await;
        let mut sum = Outcome::default();
        for outcome in outcomes {
            sum.answers.extend(outcome.answers);
            sum.errors.extend(outcome.errors);
        }
        sum
    }
}

impl Outcome {
    fn add(&mut self, number: usize, answer: Result<crate::client::Answer, crate::app::BoxError>) {
        match answer {
            Ok(answer) if answer.status.is_success() => {
                self.answers.insert(number, answer.by().to_owned());
            }
            Ok(answer) => {
                let error = format!("{} {:?} {:?}", answer.status, answer.headers, answer.body);
                self.errors.insert(number, error);
            }
            Err(error) => {
                self.errors.insert(number, format!("{error:?}"));
            }
        }
    }
}

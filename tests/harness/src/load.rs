//! Many requests at a bounded concurrency, every outcome counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::app::BoxError;
use crate::client::{Answer, Ask, Client};

/// How often each named request was executed somewhere.
pub type Executed = BTreeMap<String, usize>;

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

    /// Holds the executions on both sides, by request id, against what the client was told. Nothing that is not safe ran twice, what the app answered in the
    /// developer's place only once there, and nothing that failed ran at the app.
    pub fn assert_exact(&self, app: &Executed, server: &Executed, is_safe: bool) {
        let count =
            |counts: &Executed, id: usize| counts.get(&id.to_string()).copied().unwrap_or(0);
        for (id, by) in &self.answers {
            let (app, server) = (count(app, *id), count(server, *id));
            let is_right = match by.as_str() {
                "server" => (app, server) == (0, 1),
                "app" if is_safe => app == 1 && server <= 1,
                "app" => (app, server) == (1, 0),
                _ => false,
            };
            assert!(
                is_right,
                "{id} was answered by {by} and ran {app} times at the app, {server} at the server"
            );
        }
        for (id, error) in &self.errors {
            let (app, server) = (count(app, *id), count(server, *id));
            assert!(
                app == 0 && server <= 1,
                "{id} ran {app} times at the app and {server} at the server: {error}"
            );
        }
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
        Self::named("", client, workers, count, ask)
    }

    /// The same beside others on one stage: `name` stands before the number in each `test-id`.
    pub fn named(
        name: &str,
        client: &Client,
        workers: usize,
        count: usize,
        ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
    ) -> Self {
        let (name, client) = (name.to_owned(), client.clone());
        Self::of(workers, count, move |number| {
            let client = client.clone();
            let ask = ask(number).id(format!("{name}{number}"));
            async move { judge(client.ask(ask).await) }
        })
    }

    /// The same with calls of any kind: each tells who answered it, or the error that the caller saw.
    pub fn of<F>(
        workers: usize,
        count: usize,
        call: impl Fn(usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<String, String>> + Send,
    {
        let (stopped, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let call = Arc::new(call);
        let mut set = JoinSet::new();
        for _ in 0..workers {
            let (stopped, sent) = (Arc::clone(&stopped), Arc::clone(&sent));
            let call = Arc::clone(&call);
            set.spawn(async move {
                let mut outcome = Outcome::default();
                while !stopped.load(Ordering::SeqCst) {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        break;
                    }
                    match call(number).await {
                        Ok(by) => drop(outcome.answers.insert(number, by)),
                        Err(error) => drop(outcome.errors.insert(number, error)),
                    }
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

/// Who answered in 200–299; everything else is an error.
pub fn judge(answer: Result<Answer, BoxError>) -> Result<String, String> {
    match answer {
        Ok(answer) if answer.status.is_success() => Ok(answer.by().to_owned()),
        Ok(answer) => Err(format!(
            "{} {:?} {:?}",
            answer.status, answer.headers, answer.body
        )),
        Err(error) => Err(format!("{error:?}")),
    }
}

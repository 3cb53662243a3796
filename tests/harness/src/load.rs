//! Many requests at a bounded concurrency, with every outcome counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::app::BoxError;
use crate::client::{Answer, Ask, BrokenOff, Client};
use crate::grpc::Called;

/// Header of responses from the developer machine.
const SERVED_BY: &str = "x-intercept-served-by";

/// Executions of each named request.
pub type Executed = BTreeMap<String, usize>;

/// The outcome of a load.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The app that sent each successful response (200–299), by request id.
    pub answers: BTreeMap<usize, String>,
    /// Responses of the developer machine that broke off, by request id.
    ///
    /// The contract allows them if its side broke, but no client errors.
    pub broken: BTreeMap<usize, String>,
    /// All other results as the client saw them, by request id.
    pub errors: BTreeMap<usize, String>,
}

/// A failed request, as the client saw it.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// See [`Outcome::broken`].
    BrokenOff(String),
    /// See [`Outcome::errors`].
    Error(String),
}

impl Outcome {
    /// The number of good responses by the app that sent them.
    pub fn by(&self) -> BTreeMap<&str, usize> {
        let mut by = BTreeMap::new();
        for name in self.answers.values() {
            *by.entry(name.as_str()).or_default() += 1;
        }
        by
    }

    /// The number of successful responses from that app.
    pub fn answered_by(&self, name: &str) -> usize {
        self.by().get(name).copied().unwrap_or_default()
    }

    /// Compares the executions on both sides, by request id, with the clients' results.
    ///
    /// No unsafe request ran twice, a response of the app after a fallback means exactly one execution there, and no failed request ran at the app.
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
        for (id, error) in self.errors.iter().chain(&self.broken) {
            let (app, server) = (count(app, *id), count(server, *id));
            assert!(
                app == 0 && server <= 1,
                "{id} ran {app} times at the app and {server} at the server: {error}"
            );
        }
    }

    /// Panics if any request failed.
    pub fn assert_no_errors(&self) {
        self.assert_interrupted(0, 0);
    }

    /// Panics if more requests failed than these.
    ///
    /// `errors` limits failures without a broken-off response, `under_way` all failures.
    pub fn assert_interrupted(&self, under_way: usize, errors: usize) {
        let failed = || self.errors.iter().chain(&self.broken);
        let first: Vec<_> = failed().take(5).collect();
        assert!(
            self.errors.len() <= errors && failed().count() <= under_way,
            "{} client errors, and {} answers that broke off, beside {:?}, among them {first:?}",
            self.errors.len(),
            self.broken.len(),
            self.by()
        );
    }
}

/// Sends `count` requests over `workers` workers.
///
/// `ask` makes the request of a number, which is also its `test-id`.
pub async fn run(
    client: &Client,
    workers: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Outcome {
    Load::start(client, workers, count, ask).finish().await
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<Outcome>,
    stopped: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Load {
    /// Starts a load; with `usize::MAX` requests it runs until [`Load::stop`].
    pub fn start(
        client: &Client,
        workers: usize,
        count: usize,
        ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
    ) -> Self {
        Self::named("", client, workers, count, ask)
    }

    /// The same beside other loads: `name` precedes the number in each `test-id`.
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

    /// The same with calls of any kind.
    ///
    /// Each returns the app that responded, or the caller's error.
    pub fn of<F>(
        workers: usize,
        count: usize,
        call: impl Fn(usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<String, Failure>> + Send,
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
                        Err(Failure::Error(error)) => {
                            outcome.errors.insert(number, error);
                        }
                        Err(Failure::BrokenOff(error)) => {
                            outcome.broken.insert(number, error);
                        }
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

    /// The number of requests started.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// Ends an endless load, then as [`Load::finish`].
    pub async fn stop(self) -> Outcome {
        self.stopped.store(true, Ordering::SeqCst);
        self.finish().await
    }

    /// Waits for the last response.
    pub async fn finish(self) -> Outcome {
        let outcomes = self.workers.join_all().await;
        let mut sum = Outcome::default();
        for outcome in outcomes {
            sum.answers.extend(outcome.answers);
            sum.broken.extend(outcome.broken);
            sum.errors.extend(outcome.errors);
        }
        sum
    }
}

/// The app of a successful response (200–299); everything else is an error.
pub fn judge(answer: Result<Answer, BoxError>) -> Result<String, Failure> {
    match answer {
        Ok(answer) if answer.status.is_success() => Ok(answer.by().to_owned()),
        Ok(answer) => Err(Failure::Error(format!(
            "{} {:?} {:?}",
            answer.status, answer.headers, answer.body
        ))),
        Err(error) => {
            let text = format!("{error:?}");
            let broken = error.downcast_ref::<BrokenOff>();
            match broken.is_some_and(|broken| broken.headers.contains_key(SERVED_BY)) {
                true => Err(Failure::BrokenOff(text)),
                false => Err(Failure::Error(text)),
            }
        }
    }
}

/// The same for a gRPC call.
///
/// A broken-off call has the head's metadata, and a local cause instead of a received status.
pub fn judge_call(called: Called) -> Result<String, Failure> {
    called.map_err(|status| {
        let text = format!("{:?} {status:?}", status.code());
        let has_begun = status.metadata().contains_key(SERVED_BY);
        match has_begun && status.source().is_some() {
            true => Failure::BrokenOff(text),
            false => Failure::Error(text),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::grpc::Grpc;

    const MARK: &str = "x-intercept-served-by: bob\r\n";

    /// The result of a GET with this response, after which the connection ends.
    async fn judged(head: &str, body: &str) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::h1(listener.local_addr().unwrap());
        let bytes = format!("HTTP/1.1 {head}content-length: 5\r\n\r\n{body}");
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 1024]).await.unwrap();
            assert_ne!(read, 0, "a request");
            stream.write_all(bytes.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.ask(Ask::get("/")), answering);
        judge(answer)
    }

    #[tokio::test]
    async fn only_a_developers_answer_breaks_off() {
        let ours = format!("200 OK\r\n{MARK}");
        assert_eq!(judged(&ours, "whole").await, Ok("nobody".to_owned()));
        let broken = judged(&ours, "par").await;
        assert!(matches!(broken, Err(Failure::BrokenOff(_))), "{broken:?}");
        for (head, body) in [
            ("200 OK\r\n".to_owned(), "par"),
            (format!("502 Bad Gateway\r\n{MARK}"), "whole"),
        ] {
            let error = judged(&head, body).await;
            assert!(matches!(error, Err(Failure::Error(_))), "{error:?}");
        }
    }

    /// The result of a call with that status, and a reset after it.
    async fn judged_call(grpc_status: Option<&'static str>) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Grpc::new(listener.local_addr().unwrap(), &[]);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut head = http::Response::builder()
                .header("content-type", "application/grpc")
                .header(SERVED_BY, "bob");
            if let Some(status) = grpc_status {
                head = head.header("grpc-status", status);
            }
            let head = head.body(()).unwrap();
            let mut body = respond.send_response(head, grpc_status.is_some()).unwrap();
            if grpc_status.is_none() {
                // A reset overtakes data that is not written yet.
                let writing = Duration::from_millis(100);
                assert!(timeout(writing, connection.accept()).await.is_err());
                body.send_reset(h2::Reason::INTERNAL_ERROR);
            }
            while connection.accept().await.is_some() {}
        });
        judge_call(client.unary().await)
    }

    #[tokio::test]
    async fn a_call_breaks_off_without_a_status() {
        let broken = judged_call(None).await;
        assert!(matches!(broken, Err(Failure::BrokenOff(_))), "{broken:?}");
        let error = judged_call(Some("13")).await;
        assert!(matches!(error, Err(Failure::Error(_))), "{error:?}");
    }
}

//! How long a command goes on asking an API server that is just coming back: refused connections, 429, 5xx, and for some seconds after a start 403, since the roles are not loaded yet.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use super::ClusterError;

/// How long, from the first failure on. A restarted API server takes about half of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the API server may take to say whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// One command's patience, over all that it asks.
#[derive(Debug)]
pub(super) struct Patience {
    /// Says to the user what is waited for, once per absence.
    told: fn(&str),
    limit: Duration,
    until: Mutex<Option<Instant>>,
}

impl Patience {
    pub(super) fn new(told: fn(&str), limit: Duration) -> Self {
        Self {
            told,
            limit,
            until: Mutex::default(),
        }
    }

    /// Should the same be asked again? Returns when it is time to.
    pub(super) async fn is_worthwhile(&self, client: &Client, error: &ClusterError) -> bool {
        let may_pass = error.is_passing() || (error.is_forbidden() && !is_ready(client).await);
        if !may_pass || !self.has_time(error) {
            return false;
        }
        sleep(PAUSE).await;
        true
    }

    /// An answer: the next absence is another one.
    pub(super) fn answered(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn has_time(&self, error: &ClusterError) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let end = *until.get_or_insert_with(|| {
            (self.told)(&format!(
                "the API server is not itself at the moment ({error}); trying again for up to {} s",
                self.limit.as_secs()
            ));
            now + self.limit
        });
        now < end
    }
}

/// While the roles are not loaded, the API server refuses this question too. A 403 of one that is ready is meant.
async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else {
        return true;
    };
    let asked = timeout(READY_TIMEOUT, client.request_text(request)).await;
    matches!(asked, Ok(Ok(_)))
}

/// Did the connection fail as it does while the server is away, or while it stops? A wrong certificate or a name that does not resolve will be as wrong in a moment.
/// The client speaks HTTP/1.1 only, so there is no GOAWAY to be told from other ends.
pub(super) fn is_passing(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let kinds = [
                ErrorKind::ConnectionRefused,
                ErrorKind::ConnectionReset,
                ErrorKind::ConnectionAborted,
                ErrorKind::BrokenPipe,
                ErrorKind::UnexpectedEof,
                ErrorKind::TimedOut,
            ];
            if kinds.contains(&error.kind()) {
                return true;
            }
        }
        if error.is::<tokio::time::error::Elapsed>() || error.downcast_ref().is_some_and(is_cut_off)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Did the other side close the connection while a request was under way, or just before? That comes without an I/O error: what was read was an orderly end.
fn is_cut_off(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Cluster, KubeFlags, kind};
    use super::*;

    static TOLD: AtomicUsize = AtomicUsize::new(0);

    fn count(_: &str) {
        TOLD.fetch_add(1, Ordering::SeqCst);
    }

    /// An API server that gives these answers (status and body), to one question after the other; [`CUT`]: it reads the question and closes the connection.
    async fn server(answers: Vec<(u16, &'static str)>) -> (Cluster, tempfile::NamedTempFile) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                if status == CUT.0 {
                    continue;
                }
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "clusters": [{{"name": "k", "cluster": {{"server": "http://{address}"}}}}], "contexts": [{{"name": "c", "context": {{"cluster": "k", "user": ""}}}}]}}"#
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = KubeFlags {
            kubeconfig: Some(file.path().to_owned()),
            ..KubeFlags::default()
        };
        (Cluster::connect(&flags).await.unwrap(), file)
    }

    const CUT: (u16, &str) = (0, "");
    const FORBIDDEN: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"forbidden","reason":"Forbidden","code":403}"#;
    const AWAY: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcdserver: request timed out","reason":"InternalError","code":500}"#;
    const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}"#;

    #[tokio::test]
    async fn requests_are_retried_while_api_server_starts() {
        // Not ready: the second 403 is the answer to the question whether it is.
        let answers = vec![(500, AWAY), (403, FORBIDDEN), (403, FORBIDDEN), (200, POD)];
        let (cluster, _file) = server(answers).await;
        let cluster = cluster.patient(count);
        let pod = cluster.get(&kind::POD, Some("shop"), "x").await.unwrap();
        assert_eq!(pod.unwrap()["metadata"]["name"], "x");
        assert_eq!(TOLD.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn cut_off_request_is_retried() {
        let (cluster, _file) = server(vec![CUT, CUT]).await;
        let asked = cluster.get(&kind::POD, Some("shop"), "x").await;
        let error = asked.unwrap_err();
        assert!(error.is_passing(), "{error}");
        let error = cluster.server_time().await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        let (cluster, _file) = server(vec![CUT, (200, POD)]).await;
        let cluster = cluster.patient(|_| {});
        let pod = cluster.get(&kind::POD, Some("shop"), "x").await.unwrap();
        assert_eq!(pod.unwrap()["metadata"]["name"], "x");
    }

    #[tokio::test]
    async fn forbidden_request_is_not_retried() {
        let (cluster, _file) = server(vec![(403, FORBIDDEN), (200, "ok")]).await;
        let cluster = cluster.patient(|_| {});
        let error = cluster
            .get(&kind::POD, Some("shop"), "x")
            .await
            .unwrap_err();
        assert!(error.is_forbidden(), "{error}");
    }

    #[tokio::test]
    async fn retries_end_after_a_timeout() {
        let (cluster, _file) = server(Vec::new()).await;
        let cluster = cluster.patient_for(|_| {}, Duration::from_secs(1));
        let start = Instant::now();
        let error = cluster
            .get(&kind::POD, Some("shop"), "x")
            .await
            .unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}

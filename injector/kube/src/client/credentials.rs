//! A client that lives longer than its credentials. The library renews a token whose end its plug-in (`exec` in a kubeconfig) told; what else a plug-in gives it keeps for ever:
//! a certificate, a token without an end, one that the API server takes back. Those are renewed here, as kubectl does it. Knows no request.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

/// A certificate that ends sooner is renewed.
const MARGIN: Duration = Duration::from_secs(60);

/// Between two runs of a plug-in whose credentials are refused: it may ask its user.
const PAUSE: Duration = Duration::from_secs(60);

/// How long a plug-in may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The client of the moment, and how to make the next one. Clones share it.
#[derive(Clone)]
pub(super) struct Credentials(Arc<Mutex<State>>);

struct State {
    config: Config,
    client: Client,
    renewed: Option<Instant>,
}

impl Credentials {
    pub(super) fn new(config: Config) -> kube::Result<Self> {
        let client = Client::try_from(config.clone())?;
        Ok(Self(Arc::new(Mutex::new(State {
            config,
            client,
            renewed: None,
        }))))
    }

    /// A client to ask with.
    pub(super) async fn client(&self) -> Client {
        let mut state = self.0.lock().await;
        let ends_soon = |end: &Timestamp| *end <= Timestamp::now() + MARGIN;
        if state.client.valid_until().as_ref().is_some_and(ends_soon) {
            state.renew().await;
        }
        state.client.clone()
    }

    /// A client of its own, on which nothing may be silent for longer than that.
    pub(super) async fn client_with(&self, read_timeout: Duration) -> kube::Result<Client> {
        let mut config = self.0.lock().await.config.clone();
        config.read_timeout = Some(read_timeout);
        Client::try_from(config)
    }

    /// Forgets all connections. Each one that died silently would hold up a request.
    pub(super) async fn reconnect(&self) {
        let mut state = self.0.lock().await;
        // A plug-in may ask its user.
        if state.config.auth_info.exec.is_none()
            && let Ok(client) = Client::try_from(state.config.clone())
        {
            state.client = client;
        }
    }

    /// The API server did not accept the credentials (401). Is it worth asking again?
    pub(super) async fn refused(&self) -> bool {
        self.0.lock().await.renew().await
    }
}

impl State {
    /// Runs the plug-in. Its user sees the API server's refusal where it fails.
    async fn renew(&mut self) -> bool {
        let has_plug_in = self.config.auth_info.exec.is_some();
        let is_early = self.renewed.is_some_and(|last| last.elapsed() < PAUSE);
        if !has_plug_in || is_early {
            return false;
        }
        self.renewed = Some(Instant::now());
        let config = self.config.clone();
        let renewing = spawn_blocking(|| Client::try_from(config));
        match timeout(TIMEOUT, renewing).await {
            Ok(Ok(Ok(client))) => {
                self.client = client;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Cluster, KubeFlags};

    /// Certificate and key of a test, valid for a hundred years: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUV6RmZNPF0mjR+HI/fvxCOwrVePwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMzAxNTA2MjNaGA8yMTI2MTEwNjE1MDYy
M1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIHR
kyZK/n0tIKMlsDba84Rq9Z0bre/+MNz6vNAxWuMNimF5DdPANnfFHCtRZyZn4eM5
EdP8C0r4y4PdV0RW1q2jUzBRMB0GA1UdDgQWBBTE1dOqjFh9jsnmkm6M9qLZSZBZ
jjAfBgNVHSMEGDAWgBTE1dOqjFh9jsnmkm6M9qLZSZBZjjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQCqSrjw1yJ3858rLSCd/aDThswvzDI1bMnO
itD2S/7T1QIgXNbwmIxLsab21xkLehfn3WLUkMb830JLQnByxwFPGrg=
-----END CERTIFICATE-----";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvouiRDtIeupEBH/X
TliSVD16I4DlNnv2rcazp7eFsZOhRANCAASB0ZMmSv59LSCjJbA22vOEavWdG63v
/jDc+rzQMVrjDYpheQ3TwDZ3xRwrUWcmZ+HjORHT/AtK+MuD3VdEVtat
-----END PRIVATE KEY-----";

    /// An API server without TLS that takes back a plug-in's first `revoked` tokens.
    async fn server(revoked: Arc<Mutex<u32>>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 8_192];
                let size = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..size]).to_lowercase();
                let token = head.split_once("bearer token-").map(|(_, rest)| rest);
                let token = token.and_then(|rest| rest.lines().next()?.parse::<u32>().ok());
                let is_valid = token.is_none_or(|token| token > *revoked.lock().unwrap());
                let (status, body) = match is_valid {
                    true => (
                        "200 OK",
                        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}"#,
                    ),
                    false => (
                        "401 Unauthorized",
                        r#"{"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}"#,
                    ),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    /// A cluster whose user is a plug-in that gives this status, in which `N` is how often it ran.
    async fn cluster(dir: &Path, address: std::net::SocketAddr, status: &str) -> Cluster {
        let plug_in = dir.join("plug-in");
        let script = format!(
            "#!/bin/sh\necho >> {runs}\nN=$(($(wc -l < {runs})))\ncat <<END\n{{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {status}}}\nEND\n",
            runs = dir.join("runs").display()
        );
        fs::write(&plug_in, script).unwrap();
        fs::set_permissions(&plug_in, fs::Permissions::from_mode(0o755)).unwrap();
        let kubeconfig = dir.join("kubeconfig");
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "users": [{{"name": "u", "user": {{"exec": {{"apiVersion": "client.authentication.k8s.io/v1", "command": "{}", "interactiveMode": "Never"}}}}}}],
            "clusters": [{{"name": "k", "cluster": {{"server": "http://{address}"}}}}], "contexts": [{{"name": "c", "context": {{"cluster": "k", "user": "u"}}}}]}}"#,
            plug_in.display()
        );
        fs::write(&kubeconfig, text).unwrap();
        let flags = KubeFlags {
            kubeconfig: Some(kubeconfig),
            ..KubeFlags::default()
        };
        Cluster::connect(&flags).await.unwrap()
    }

    fn runs(dir: &TempDir) -> u32 {
        let runs = fs::read(dir.path().join("runs")).unwrap();
        runs.len().try_into().unwrap()
    }

    async fn is_answered(cluster: &Cluster) -> bool {
        let kind = &super::super::kind::POD;
        cluster.get(kind, Some("shop"), "x").await.is_ok()
    }

    #[tokio::test]
    async fn refused_token_is_renewed_once() {
        let (dir, revoked) = (tempfile::tempdir().unwrap(), Arc::<Mutex<u32>>::default());
        let address = server(Arc::clone(&revoked)).await;
        let cluster = cluster(dir.path(), address, r#"{"token": "token-$N"}"#).await;
        assert!(is_answered(&cluster).await);
        *revoked.lock().unwrap() = runs(&dir);
        assert!(is_answered(&cluster).await, "the token had expired");
        // The refusal is passed on, and no plug-in opens a browser every few seconds.
        let before = runs(&dir);
        *revoked.lock().unwrap() = u32::MAX;
        for _ in 0..3 {
            assert!(!is_answered(&cluster).await);
        }
        assert_eq!(runs(&dir), before);
    }

    /// The library's own business: a token that says when it ends.
    #[tokio::test]
    async fn token_that_ends_soon_is_renewed() {
        let (dir, revoked) = (tempfile::tempdir().unwrap(), Arc::<Mutex<u32>>::default());
        let address = server(Arc::clone(&revoked)).await;
        let status = r#"{"token": "token-$N", "expirationTimestamp": "2020-01-01T00:00:00Z"}"#;
        let cluster = cluster(dir.path(), address, status).await;
        for _ in 0..3 {
            *revoked.lock().unwrap() = runs(&dir);
            assert!(is_answered(&cluster).await);
        }
    }

    #[tokio::test]
    async fn certificate_that_ends_soon_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let address = server(Arc::default()).await;
        let status = format!(
            r#"{{"clientCertificateData": "{CERTIFICATE}", "clientKeyData": "{KEY}", "expirationTimestamp": "2020-01-01T00:00:00Z"}}"#
        )
        .replace('\n', "\\\\n");
        let cluster = cluster(dir.path(), address, &status).await;
        let before = runs(&dir);
        assert!(is_answered(&cluster).await);
        assert!(runs(&dir) > before);
    }
}

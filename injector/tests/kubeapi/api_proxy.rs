//! A wire between one command and the API server, on which single requests can be held up, let go and answered by the test: `kubectl proxy` in the user's name, which speaks HTTP
//! without TLS, and before it a forwarder that reads the heads of requests.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::programs::binary;
use super::stage::Stage;
use super::support::{Running, wait_until};

pub struct Wire {
    proxy: Child,
    folder: tempfile::TempDir,
    line: Arc<Mutex<Line>>,
}

/// The first request of this kind from now on, as the test wants it.
pub struct Caught {
    line: Arc<Mutex<Line>>,
    deed_tx: Option<oneshot::Sender<Deed>>,
}

#[derive(Default)]
struct Line {
    wanted: Option<Wanted>,
    /// How the last one that was caught began.
    caught: Option<String>,
    /// The first lines of all that came by.
    passed: Vec<String>,
}

struct Wanted {
    method: &'static str,
    path: String,
    /// test → forwarder: what to do with it.
    deed_rx: oneshot::Receiver<Deed>,
}

enum Deed {
    Forward,
    Fail,
}

impl Wire {
    /// For bob, in the stage's namespace.
    pub fn new(stage: &Stage) -> Self {
        let mut proxy = Command::new(binary("kubernetes-*/kubectl"))
            .args(["proxy", "--port=0"])
            .env("KUBECONFIG", stage.kubeconfig("bob"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        let mut said = String::new();
        BufReader::new(proxy.stdout.take().expect("piped"))
            .read_line(&mut said)
            .expect("it says its port");
        let upstream = said
            .trim()
            .rsplit(' ')
            .next()
            .expect("an address")
            .to_owned();
        let line = Arc::<Mutex<Line>>::default();
        let held = Arc::clone(&line);
        let address = stage.wait(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = listener.local_addr().expect("bound");
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let server = TcpStream::connect(&upstream).await.expect("it listens");
                    tokio::spawn(pass(client, server, Arc::clone(&held)));
                }
            });
            address
        });
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {}}}}}]\n",
            stage.namespace
        );
        std::fs::write(folder.path().join("kubeconfig"), text).expect("written");
        Self {
            proxy,
            folder,
            line,
        }
    }

    /// Starts a command that reaches the API server over it.
    pub fn start(&self, stage: &Stage, arguments: &[&str]) -> Running {
        let mut command = stage.command("bob", arguments);
        Running::new(command.env("KUBECONFIG", self.kubeconfig()))
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Holds up the first request from now on with this method, and with `path` in its path.
    pub fn catch(&self, method: &'static str, path: &str) -> Caught {
        let (deed_tx, deed_rx) = oneshot::channel();
        let mut line = self.line.lock().expect("whole");
        line.caught = None;
        line.wanted = Some(Wanted {
            method,
            path: path.to_owned(),
            deed_rx,
        });
        Caught {
            line: Arc::clone(&self.line),
            deed_tx: Some(deed_tx),
        }
    }

    /// How many such requests came by so far.
    pub fn passed(&self, method: &str, path: &str) -> usize {
        let line = self.line.lock().expect("whole");
        let is_meant = |first: &&String| first.starts_with(method) && first.contains(path);
        line.passed.iter().filter(is_meant).count()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

impl Caught {
    /// Waits until there is one.
    #[track_caller]
    pub fn wait(&self) {
        let is_there = || self.line.lock().expect("whole").caught.is_some();
        let what = || format!("only these: {:?}", self.line.lock().expect("whole").passed);
        wait_until(is_there, what);
    }

    /// Lets it go on, whether or not its client still waits.
    pub fn forward(mut self) {
        self.tell(Deed::Forward);
    }

    /// Answers it with 500; the API server never sees it.
    pub fn fail(mut self) {
        self.tell(Deed::Fail);
    }

    fn tell(&mut self, deed: Deed) {
        let told = self.deed_tx.take().map(|deed_tx| deed_tx.send(deed));
        assert!(matches!(told, Some(Ok(()))), "nobody holds it any more");
    }
}

async fn pass(client: TcpStream, server: TcpStream, line: Arc<Mutex<Line>>) {
    let (from_client, to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    let answers = Arc::clone(&to_client);
    tokio::spawn(async move {
        let mut text = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut text).await {
            // The client of a request that was held up may be gone.
            let _ = answers.lock().await.write_all(&text[..length]).await;
        }
        let _ = answers.lock().await.shutdown().await;
    });
    requests(from_client, to_server, &to_client, &line).await;
}

/// Passes on what the client says.
async fn requests(
    mut from_client: OwnedReadHalf,
    mut to_server: OwnedWriteHalf,
    to_client: &tokio::sync::Mutex<OwnedWriteHalf>,
    line: &Mutex<Line>,
) {
    let mut was_held = false;
    let mut text = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from_client.read(&mut text).await {
        let mut said = text[..length].to_vec();
        if let Some(wanted) = wanted(&said, line) {
            was_held = true;
            read_rest(&mut from_client, &mut said).await;
            line.lock().expect("whole").caught = Some(first_line(&said));
            match wanted.deed_rx.await {
                Ok(Deed::Forward) => {}
                Ok(Deed::Fail) => {
                    let _ = to_client.lock().await.write_all(FAILED.as_bytes()).await;
                    return;
                }
                Err(_) => return std::future::pending().await,
            }
        }
        if to_server.write_all(&said).await.is_err() {
            return;
        }
    }
    if was_held {
        // What was sent on late is not to be cut off by a client that did not wait.
        std::future::pending::<()>().await;
    }
}

/// What is wanted, if these are the first bytes of it.
fn wanted(said: &[u8], line: &Mutex<Line>) -> Option<Wanted> {
    let first = first_line(said);
    let mut line = line.lock().expect("whole");
    if first.contains(" HTTP/1.1") {
        line.passed.push(first.clone());
    }
    let is_it =
        |wanted: &mut Wanted| first.starts_with(wanted.method) && first.contains(&wanted.path);
    line.wanted.take_if(is_it)
}

fn first_line(said: &[u8]) -> String {
    let first = said.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}

/// The body may come by itself.
async fn read_rest(from_client: &mut OwnedReadHalf, said: &mut Vec<u8>) {
    let length = |said: &[u8]| {
        let text = String::from_utf8_lossy(said).to_lowercase();
        let (head, _) = text.split_once("\r\n\r\n")?;
        let length = head.split("\r\ncontent-length: ").nth(1)?;
        let body: usize = length.split('\r').next()?.parse().ok()?;
        Some(head.len() + 4 + body)
    };
    while length(said).is_some_and(|length| said.len() < length) {
        let mut text = vec![0; 64 << 10];
        let more = from_client.read(&mut text).await.unwrap_or(0);
        assert_ne!(more, 0, "half a request");
        said.extend_from_slice(&text[..more]);
    }
}

const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 108\r\n\r\n\
{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"request timed out\",\"reason\":\"X\",\"code\":500}";

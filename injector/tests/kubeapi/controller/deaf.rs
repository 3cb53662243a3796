//! A controller whose connections die without a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::server::Server;
use super::control::{Control, Shop, intercept};

/// Silence is noticed after 25 s at the latest, and a watch is tried again after 2 s.
const NOTICED: Duration = Duration::from_secs(40);

/// A way to the API server on which connections can fall silent, and stay open.
struct Way {
    address: std::net::SocketAddr,
    silence_tx: watch::Sender<()>,
}

impl Way {
    fn to(server: &Server, api: String) -> Self {
        let (silence_tx, silence_rx) = watch::channel(());
        let address = server.runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = listener.local_addr().expect("bound");
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let silence_rx = silence_rx.clone();
                    let api = api.clone();
                    tokio::spawn(async move {
                        let server = TcpStream::connect(api).await.ok()?;
                        let (from_client, to_client) = client.into_split();
                        let (from_server, to_server) = server.into_split();
                        tokio::spawn(pass(from_client, to_server, silence_rx.clone()));
                        pass(from_server, to_client, silence_rx).await
                    });
                }
            });
            address
        });
        Self {
            address,
            silence_tx,
        }
    }

    /// Nothing passes any more on what is open now.
    fn silence(&self) {
        self.silence_tx.send(()).expect("it is watched");
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silence_rx: watch::Receiver<()>,
) -> Option<()> {
    silence_rx.mark_unchanged();
    let mut text = vec![0; 64 << 10];
    loop {
        let length = tokio::select! {
            _ = silence_rx.changed() => return std::future::pending().await,
            read = from.read(&mut text) => read.ok()?,
        };
        if length == 0 {
            return to.shutdown().await.ok();
        }
        to.write_all(&text[..length]).await.ok()?;
    }
}

#[test]
fn dead_connections_are_noticed() {
    let shop = Shop::on(Arc::new(Control::start(Server::bare())), "deaf");
    shop.control.stop();
    let server = shop.server();
    let account = server.account();
    let text = std::fs::read_to_string(&account).expect("a kubeconfig");
    let api = text.split_once("https://").and_then(|(_, rest)| {
        let end = rest.find(|char: char| !char.is_ascii_digit() && !".:".contains(char))?;
        Some(rest[..end].to_owned())
    });
    let api = api.expect("an address");
    let way = Way::to(server, api.clone());
    let beside = account.with_file_name("controller-on-its-way");
    std::fs::write(&beside, text.replace(&api, &way.address.to_string())).expect("written");
    let controller = server.controller_with(&beside, &[]);
    // Several at once: each of its connections may be used again.
    let names: Vec<String> = (0..8).map(|number| format!("bob-{number}")).collect();
    for name in &names {
        shop.create("bob", &intercept(name, "bob"));
    }
    for name in &names {
        shop.until(name, "Programmed", "True Programmed");
    }
    way.silence();
    let silent = Instant::now();
    shop.create("alice", &intercept("alice", "alice"));
    shop.until("alice", "Programmed", "True Programmed");
    println!("programmed {:?} after the silence began", silent.elapsed());
    assert!(silent.elapsed() < NOTICED, "{}", controller.stderr());
    controller.signal(Signal::KILL);
    controller.end();
}

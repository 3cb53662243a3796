//! The program in the pods of a test: the app behind `orders`, or the TCP proxy for its callers.
//!
//! Statically linked, because its image contains nothing else.
//!
//!     standin serve NAME=PORT…    answers as that name on each port
//!     standin tcp_proxy             see `harness::tcp_proxy`

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use harness::app::App;
use harness::tcp_proxy;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A pod gets SIGTERM before all proxies know that it ends: until then it serves.
const LINGER: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", ref ports @ ..] => {
            let mut apps = Vec::new();
            for port in ports {
                apps.push(serve(port).await?);
            }
            term.recv().await;
            tokio::time::sleep(LINGER).await;
            Ok(())
        }
        ["tcp_proxy"] => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, tcp_proxy::PORT)).await?;
            tokio::select! {
                ended = tcp_proxy::serve(listener) => ended,
                _ = term.recv() => Ok(()),
            }
        }
        _ => Err(std::io::Error::other(
            "standin serve NAME=PORT… | tcp_proxy",
        )),
    }
}

/// Serves an app that records executions in `$COUNTS`, a file for each pod and port.
async fn serve(word: &str) -> std::io::Result<App> {
    let (name, port) = word.split_once('=').unwrap_or((word, ""));
    let port: u16 = port.parse().map_err(std::io::Error::other)?;
    let variable = |name| std::env::var(name).map_err(std::io::Error::other);
    let path = Path::new(&variable("COUNTS")?).join(format!("{}-{port}", variable("HOSTNAME")?));
    let record = File::options().append(true).create(true).open(path)?;
    let note = move |id: &str| {
        // One write, so that lines of several programs do not mix.
        let line = format!("{id}\n");
        (&record)
            .write_all(line.as_bytes())
            .expect("a writable record");
    };
    Ok(App::listen_and_note(name, (Ipv4Addr::UNSPECIFIED, port).into(), note).await)
}

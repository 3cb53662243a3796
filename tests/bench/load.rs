//! The server that all reach, and the work that is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::tunnel::{Body, full, repeat};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::rivals::Rival;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Small GETs, one after the other on each connection.
    Requests { connections: usize },
    /// Small POSTs.
    Posts { connections: usize },
    /// A download of this many MiB.
    Down(u64),
    /// An upload of this many MiB.
    Up(u64),
}

/// What one slice of work took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests, or MiB, per second.
    pub rate: f64,
    /// The median latency.
    pub median: Duration,
    /// CPU time of both ends per request, or per MiB.
    pub cpu: Duration,
    /// The developer's end alone.
    pub near: Duration,
}

/// A server on the developer's machine: HTTP/1.1 with keep-alive.
pub struct Server {
    pub port: u16,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket");
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(async { drop(serving.await) });
            }
        });
        Self { port }
    }
}

/// `/MIB` gives that many MiB; everything else a line, once the body is read.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    while let Some(frame) = request.body_mut().frame().await {
        frame?;
    }
    let mib = request
        .uri()
        .path()
        .trim_start_matches('/')
        .parse()
        .unwrap_or(0);
    Ok(Response::new(match mib {
        0 => full("hello from the developer's machine\n"),
        mib => repeat(b'x', mib << 20),
    }))
}

/// Does the work for a slice of time, or once if it is bulk.
pub async fn measure(rival: &Rival, work: Work, slice: Duration) -> Measured {
    let before = rival.cpu();
    let began = Instant::now();
    let (amount, mut latencies) = match work {
        Work::Requests { connections } => small(rival, connections, "GET", slice).await,
        Work::Posts { connections } => small(rival, connections, "POST", slice).await,
        Work::Down(mib) => {
            let mut sender = connect(rival.addr).await;
            let read = ask(
                &mut sender,
                rival.request("GET", &format!("/{mib}"), full("")),
            )
            .await;
            assert_eq!(read, mib << 20, "{}", rival.name);
            (mib as f64, vec![began.elapsed()])
        }
        Work::Up(mib) => {
            let mut sender = connect(rival.addr).await;
            let body = repeat(b'x', mib << 20);
            ask(&mut sender, rival.request("POST", "/", body)).await;
            (mib as f64, vec![began.elapsed()])
        }
    };
    let lasted = began.elapsed();
    // What is still being closed counts, too.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = rival.cpu();
    latencies.sort();
    let each = |end: usize| (after[end] - before[end]).div_f64(amount);
    Measured {
        rate: amount / lasted.as_secs_f64(),
        median: latencies[latencies.len() / 2],
        cpu: each(0) + each(1),
        near: each(1),
    }
}

async fn small(
    rival: &Rival,
    connections: usize,
    method: &'static str,
    slice: Duration,
) -> (f64, Vec<Duration>) {
    let ends = Instant::now() + slice;
    let workers = (0..connections).map(|_| {
        let rival = rival.clone();
        tokio::spawn(async move {
            let mut sender = connect(rival.addr).await;
            let mut latencies = Vec::new();
            while Instant::now() < ends {
                let began = Instant::now();
                let body = full(if method == "POST" { "a small body" } else { "" });
                let read = ask(&mut sender, rival.request(method, "/", body)).await;
                assert!(read > 0, "{}: an empty answer", rival.name);
                latencies.push(began.elapsed());
            }
            latencies
        })
    });
    let mut all = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.expect("no panic"));
    }
    (all.len() as f64, all)
}

async fn connect(addr: SocketAddr) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(addr).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(async { drop(connection.await) });
    sender
}

/// The number of bytes of the answer.
async fn ask(sender: &mut http1::SendRequest<Body>, request: Request<Body>) -> u64 {
    sender.ready().await.expect("a connection that is open");
    let mut response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut read = 0;
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.expect("a whole answer");
        read += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
    read
}

//! Both ends over real TCP, and destinations that behave in one way each.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use intercept_outbound::client::{Client, Connect, Event, Stream};
use intercept_outbound::server::{Admitted, Admitting, DialRecord, Gate, Limits, Options, serve};
use intercept_outbound::{
    ClusterConfig, Connection, Destination, DialError, Hello, Policy, Proof, Rejection, ResolvConf,
    Resolver, Service, Tempo,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Long enough for a machine that compiles beside the test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The secret of the intercept that lives.
pub const SECRET: &str = "live";

/// Lets in developers with one of these secrets.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<HashSet<String>>);

impl Secrets {
    pub fn add(&self, secret: &str) {
        self.0.lock().unwrap().insert(secret.to_owned());
    }

    pub fn remove(&self, secret: &str) {
        self.0.lock().unwrap().remove(secret);
    }
}

impl Gate for Secrets {
    fn admit<'a>(&'a self, hello: &'a Hello) -> Admitting<'a> {
        let is_live = self.0.lock().unwrap().contains(&hello.proof.0);
        Box::pin(async move {
            match is_live {
                true => Ok(Admitted {
                    key: hello.proof.0.clone(),
                    intercept: hello.name.clone(),
                }),
                false => Err(Rejection::for_now(
                    StatusCode::FORBIDDEN,
                    "no such intercept",
                )),
            }
        })
    }
}

/// What a test may change.
pub struct Setup {
    pub services: Vec<Service>,
    pub policy: Policy,
    pub conf: ResolvConf,
    pub limits: Limits,
    pub tempo: Tempo,
    pub dial: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            policy: Policy::default(),
            conf: ResolvConf::default(),
            limits: Limits::default(),
            tempo: Tempo::default(),
            dial: Duration::from_secs(20),
        }
    }
}

/// The cluster's end.
pub struct Cluster {
    pub address: SocketAddr,
    pub secrets: Arc<Secrets>,
    pub audit: mpsc::Receiver<DialRecord>,
    stop: Option<oneshot::Sender<()>>,
    tempo: Tempo,
}

impl Cluster {
    pub async fn start(setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, setup)
    }

    pub fn start_on(listener: TcpListener, setup: Setup) -> Self {
        let address = listener.local_addr().unwrap();
        let (audit_tx, audit) = mpsc::channel(4_096);
        let (stop, stopped) = oneshot::channel::<()>();
        let secrets = Arc::<Secrets>::default();
        secrets.add(SECRET);
        let search = setup.conf.search.clone();
        let options = Options {
            gate: Arc::clone(&secrets) as Arc<dyn Gate>,
            resolver: Resolver::new(setup.conf, setup.services),
            policy: setup.policy,
            limits: setup.limits,
            config: ClusterConfig {
                domain: "cluster.test".to_owned(),
                search,
                ndots: 5,
                ranges: vec!["192.0.2.0/24".parse().unwrap()],
            },
            tempo: setup.tempo,
            dial: setup.dial,
            grace: Duration::from_millis(200),
            recheck: Duration::from_millis(100),
            absence: Duration::from_millis(300),
            audit: audit_tx,
        };
        tokio::spawn(serve(listener, options, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            secrets,
            audit,
            stop: Some(stop),
            tempo: setup.tempo,
        }
    }

    pub fn stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }

    /// A developer with this secret.
    pub fn developer(&self, secret: &str) -> (Client, mpsc::Receiver<Event>) {
        developer_at(self.address, secret, self.tempo)
    }

    /// One that is let in.
    pub fn client(&self) -> Client {
        self.developer(SECRET).0
    }

    pub async fn record(&mut self) -> DialRecord {
        soon(self.audit.recv()).await.expect("a record")
    }
}

pub fn developer_at(
    address: SocketAddr,
    secret: &str,
    tempo: Tempo,
) -> (Client, mpsc::Receiver<Event>) {
    let (events_tx, events) = mpsc::channel(64);
    let hello = Hello {
        proof: Proof(secret.to_owned()),
        name: "orders-bob".to_owned(),
        instance: "one".to_owned(),
    };
    (Client::start(hello, tcp(address), tempo, events_tx), events)
}

pub fn tcp(address: SocketAddr) -> Connect {
    Arc::new(move || {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    })
}

pub fn named(name: &str, port: u16) -> Destination {
    Destination::Name(name.to_owned(), port)
}

/// A service that is this listener.
pub fn service(name: &str, target: SocketAddr) -> Service {
    Service {
        name: name.to_owned(),
        port: 80,
        target,
    }
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

pub async fn dial(client: &Client, name: &str) -> Result<Connection, DialError> {
    soon(client.dial(&named(name, 80))).await
}

/// Answers what it is sent, and its end with an end.
pub async fn echo() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(4_096).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                continue;
            };
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// A listener whose connections a test handles itself.
pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port of this machine on which nothing listens.
pub async fn refusing() -> SocketAddr {
    listener().await.1
}

/// A port that answers no SYN: its queue is full. What is returned keeps it so.
pub async fn silent() -> (SocketAddr, Box<dyn Send>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        held.push(stream);
    }
    (address, Box::new((listener, held)))
}

/// Sends a text, half-closes and reads to the end.
pub async fn exchange(connection: &mut Connection, text: &[u8]) -> io::Result<Vec<u8>> {
    connection.write_all(text).await?;
    connection.shutdown().await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Closes as a crashed program does.
pub fn crash(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}

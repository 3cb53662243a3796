//! Through both ends of a real connection into the cluster: HTTP/2 to the end that dials, with its services and its policy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use intercept_outbound::client::{Client, Stream};
use intercept_outbound::namespace::ClusterDialer;
use intercept_outbound::server::{Admitted, Admitting, Gate, Limits, Options, serve};
use intercept_outbound::{
    ClusterConfig, Hello, Policy, Proof, ResolvConf, Resolver, Service, Tempo,
};
use libtest_mimic::Trial;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::fixture::{Fixture, output, trial};
use super::server::{self, PAGE};

/// Set for a command that reaches the cluster so: the ports of the services `web` and `closed`, with a comma between them.
pub const PORTS: &str = "FIXTURE_TUNNEL";

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "tunnel::services_are_reached_by_name",
            services_are_reached_by_name,
        ),
        trial("tunnel::outcomes_pass_through", outcomes_pass_through),
    ]
}

/// Lets in every developer.
struct Open;

impl Gate for Open {
    fn admit<'a>(&'a self, hello: &'a Hello) -> Admitting<'a> {
        Box::pin(async {
            Ok(Admitted {
                key: hello.proof.0.clone(),
                intercept: hello.name.clone(),
            })
        })
    }
}

/// Starts the cluster's end in this process, and connects to it.
pub async fn dialer(ports: &str) -> ClusterDialer {
    let ports: Vec<u16> = ports.split(',').flat_map(str::parse).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, options(&ports), std::future::pending()));
    let hello = Hello {
        proof: Proof("secret".to_owned()),
        name: "orders-bob".to_owned(),
        instance: "one".to_owned(),
    };
    let (events_tx, _) = mpsc::channel(1);
    let client = Client::start(hello, connect(address), Tempo::default(), events_tx);
    let config = client.config().await.expect("a connection");
    ClusterDialer::new(client, config)
}

fn connect(address: SocketAddr) -> intercept_outbound::client::Connect {
    Arc::new(move || {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    })
}

fn options(ports: &[u16]) -> Options {
    let conf = ResolvConf {
        search: vec!["sandbox".to_owned()],
        ndots: 5,
        ..ResolvConf::default()
    };
    let services = ["web", "closed"].into_iter().zip(ports);
    let services = services.map(|(name, port)| Service {
        name: name.to_owned(),
        port: 80,
        target: ([127, 0, 0, 1], *port).into(),
    });
    Options {
        gate: Arc::new(Open),
        config: ClusterConfig {
            domain: "sandbox".to_owned(),
            search: conf.search.clone(),
            ndots: conf.ndots,
            ranges: vec!["192.0.2.0/24".parse().expect("a range")],
        },
        resolver: Resolver::new(conf, services.collect()),
        policy: Policy::default(),
        limits: Limits::default(),
        tempo: Tempo::default(),
        dial: Duration::from_secs(20),
        grace: Duration::ZERO,
        recheck: Duration::from_secs(15),
        absence: Duration::from_secs(60),
        audit: mpsc::channel(64).0,
    }
}

/// What a Python program prints that reaches the cluster so.
fn python(script: &str) -> String {
    let fixture = Fixture::new();
    let mut command = fixture.inside(&["python3", "-c", script]);
    let ports = format!("{},{}", server::start(), server::closed_port());
    command.env(PORTS, ports);
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

fn services_are_reached_by_name() {
    let script = "import urllib.request
for host in ('web', 'web.sandbox'):
    print(urllib.request.urlopen(f'http://{host}/').read().decode())";
    assert_eq!(python(script), format!("{PAGE}\n{PAGE}"));
}

fn outcomes_pass_through() {
    // A refusal of the service, one of the policy, a half-close, and a reset.
    let script = "import errno, socket
def outcome(host):
    try: socket.create_connection((host, 80), 30); return 'connected'
    except OSError as error: return errno.errorcode[error.errno]
print(outcome('closed'), outcome('192.0.2.77'))
stream = socket.create_connection(('web', 80))
stream.sendall(b'h' + b'x' * 3_000_000); stream.shutdown(socket.SHUT_WR)
print(b''.join(iter(lambda: stream.recv(999), b'')).decode())
stream = socket.create_connection(('web', 80))
stream.sendall(b'r' + b'x' * 100)
try: print(b''.join(iter(lambda: stream.recv(999), b'')))
except ConnectionResetError: print('reset')";
    let expected = "ECONNREFUSED EHOSTUNREACH\n3000000 bytes, then the end\nreset";
    assert_eq!(python(script), expected);
}

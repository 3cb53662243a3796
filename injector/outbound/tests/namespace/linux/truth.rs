//! What the cluster says of a connection is what the program sees of it.

use std::time::Duration;

use libtest_mimic::Trial;

use super::fixture::{Fixture, trial};
use super::run::{DENIED_PORT, SILENT_PORT, UNREACHABLE_PORT};
use super::server;

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("truth::refusals_are_refusals", refusals_are_refusals),
        trial(
            "truth::silence_is_the_programs_timeout",
            silence_is_the_programs_timeout,
        ),
        trial("truth::unreachable_and_denied", unreachable_and_denied),
        trial("truth::dead_ipv6_falls_back", dead_ipv6_falls_back),
        trial("truth::one_dial_a_connection", one_dial_a_connection),
        trial("truth::half_close", half_close),
        trial("truth::resets_pass_both_ways", resets_pass_both_ways),
        trial(
            "truth::answer_before_reset_arrives",
            answer_before_reset_arrives,
        ),
    ]
}

/// Prints the error of a connection, and whether it came at once.
const OPEN: &str = r#"
import errno, socket, time
def open(host, port, timeout=20):
    began = time.time()
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family) as stream:
        stream.settimeout(timeout)
        try: stream.connect((host, port)); outcome = 'connected'
        except TimeoutError: outcome = 'timeout'
        except OSError as error: outcome = errno.errorcode[error.errno]
    return outcome, time.time() - began
"#;

fn outcomes(fixture: &Fixture, destinations: &[(&str, u16)]) -> Vec<String> {
    let calls: String = destinations
        .iter()
        .map(|(host, port)| format!("print(open('{host}', {port})[0])\n"))
        .collect();
    let text = fixture.python(&format!("{OPEN}{calls}"));
    text.lines().map(str::to_owned).collect()
}

fn refusals_are_refusals() {
    let (open, closed) = (server::start(), server::closed_port());
    let destinations = [
        ("10.96.0.5", closed),
        ("fd00:96::5", closed),
        ("127.0.0.1", closed),
        ("::1", closed),
        // The namespace's own addresses, where nothing listens.
        ("198.18.0.1", open),
        ("10.96.0.5", open),
        ("fd00:96::5", open),
    ];
    let expected = [
        "ECONNREFUSED",
        "ECONNREFUSED",
        "ECONNREFUSED",
        "ECONNREFUSED",
        "ECONNREFUSED",
        "connected",
        "connected",
    ];
    assert_eq!(outcomes(&Fixture::new(), &destinations), expected);
}

fn silence_is_the_programs_timeout() {
    let script = format!(
        "{OPEN}
for host in ('10.96.0.5', 'fd00:96::5'):
    outcome, took = open(host, {SILENT_PORT}, 2.5)
    print(outcome, 2.4 < took)"
    );
    assert_eq!(Fixture::new().python(&script), "timeout True\ntimeout True");
}

fn unreachable_and_denied() {
    let destinations = [
        ("10.96.0.5", UNREACHABLE_PORT),
        ("10.96.0.5", DENIED_PORT),
        ("fd00:96::5", UNREACHABLE_PORT),
        ("fd00:96::5", DENIED_PORT),
    ];
    // IPv4 has one word for both.
    let expected = ["EHOSTUNREACH", "EHOSTUNREACH", "EHOSTUNREACH", "EACCES"];
    assert_eq!(outcomes(&Fixture::new(), &destinations), expected);
}

/// "Happy eyeballs" need a refusal that is one.
fn dead_ipv6_falls_back() {
    let fixture = Fixture::new();
    let script = "const net = require('net');
        const server = net.createServer((stream) => stream.end('x')).listen(0, '127.0.0.1', () => {
          const lookup = (host, options, done) => done(null, [{address: 'fd00:96::5', family: 6}, {address: '127.0.0.1', family: 4}]);
          const stream = net.connect({port: server.address().port, host: 'both.test', autoSelectFamily: true, lookup});
          stream.on('error', (error) => { console.log(error.code); process.exit(); });
          stream.on('data', (data) => { console.log(stream.remoteAddress, data.toString()); process.exit(); });
        });";
    let output = super::fixture::output(fixture.inside(&["node", "-e", script]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "127.0.0.1 x\n", "{output:?}");
}

/// The connection that was dialled while its SYN waited is the one that is used.
fn one_dial_a_connection() {
    let fixture = Fixture::new();
    for (local, cluster) in [("127.0.0.1:0", "10.96.0.5"), ("[::1]:0", "fd00:96::5")] {
        let listener = std::net::TcpListener::bind(local).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let script = format!(
            "import socket
for _ in range(20):
    with socket.create_connection(('{cluster}', {port})) as stream: stream.sendall(b'x')"
        );
        let (stop_tx, stop) = std::sync::mpsc::channel::<()>();
        let counter = std::thread::spawn(move || {
            listener.set_nonblocking(true).expect("a socket");
            let mut streams = Vec::new();
            loop {
                match listener.accept() {
                    Ok(stream) => streams.push(stream),
                    Err(_) if stop.try_recv().is_ok() => return streams.len(),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        fixture.python(&script);
        stop_tx.send(()).expect("a counter");
        assert_eq!(counter.join().expect("a count"), 20, "{cluster}");
    }
}

fn half_close() {
    let (fixture, port) = (Fixture::new(), server::start());
    // To the cluster, and to the host's loopback, which takes another way.
    let script = format!(
        "import socket
for host in ('10.96.0.5', 'fd00:96::5', '127.0.0.1', '::1'):
    for length in (0, 3_000_000):
        with socket.create_connection((host, {port})) as stream:
            stream.sendall(b'h' + b'x' * length); stream.shutdown(socket.SHUT_WR)
            print(b''.join(iter(lambda: stream.recv(999), b'')).decode())"
    );
    let expected = ["0 bytes, then the end\n3000000 bytes, then the end"; 4].join("\n");
    assert_eq!(fixture.python(&script), expected);
}

fn resets_pass_both_ways() {
    let (fixture, port) = (Fixture::new(), server::start());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let report = listener.local_addr().expect("an address").port();
    let script = format!(
        "import socket, struct
for host in ('10.96.0.5', '127.0.0.1'):
    stream = socket.create_connection((host, {port}))
    stream.sendall(b'w' + struct.pack('>H', {report}))
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); stream.close()
for host in ('10.96.0.5', '127.0.0.1'):
    stream = socket.create_connection((host, {port}))
    stream.sendall(b'r' + b'x' * 100)
    try: print(b''.join(iter(lambda: stream.recv(999), b'')))
    except ConnectionResetError: print('reset')"
    );
    let reports = std::thread::spawn(move || {
        let streams = listener.incoming().flatten().take(2);
        let texts = streams.map(|stream| std::io::read_to_string(stream).unwrap_or_default());
        texts.collect::<Vec<_>>()
    });
    assert_eq!(fixture.python(&script), "reset\nreset");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !reports.is_finished() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(reports.is_finished(), "the server saw no reset");
    let reports = reports.join().expect("texts");
    assert_eq!(reports, ["Err(ConnectionReset)"; 2]);
}

/// A server that refuses an upload early answers and resets: the answer is worth reading.
fn answer_before_reset_arrives() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!(
        "import socket
for host in ('10.96.0.5', '127.0.0.1'):
    stream = socket.create_connection((host, {port}))
    stream.sendall(b'r')
    print(stream.recv(999).decode())"
    );
    assert_eq!(fixture.python(&script), "answer\nanswer");
}

//! The host's loopback behind the program's own, datagrams, and the program's listeners on the host.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use libtest_mimic::Trial;

use super::fixture::{Fixture, Running, output, trial, wait_for};
use super::run::LABEL;
use super::server::{self, PAGE};

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "host::own_port_comes_before_hosts",
            own_port_comes_before_hosts,
        ),
        trial("host::datagrams_reach_the_host", datagrams_reach_the_host),
        trial(
            "host::datagrams_into_cluster_are_told",
            datagrams_into_cluster_are_told,
        ),
        trial(
            "host::ping_answers_only_for_itself",
            ping_answers_only_for_itself,
        ),
        trial("host::listeners_are_published", listeners_are_published),
        trial(
            "host::second_command_joins_the_first",
            second_command_joins_the_first,
        ),
        trial("host::published_port_is_no_loop", published_port_is_no_loop),
        trial("host::taken_port_is_told", taken_port_is_told),
    ]
}

fn own_port_comes_before_hosts() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!(
        "import socket, urllib.request
page = lambda host: urllib.request.urlopen(f'http://{{host}}:{port}/', timeout=20).read().decode()
print(page('127.0.0.1'), page('[::1]'), page('localhost'))
own = socket.create_server(('127.0.0.1', {port}))
stream = socket.create_connection(('127.0.0.1', {port})); peer, _ = own.accept(); peer.sendall(b'own'); print(stream.recv(9).decode())
print(page('10.96.0.5'))
own.close(); peer.close(); stream.close()
print(page('127.0.0.1'))"
    );
    let expected = format!("{PAGE} {PAGE} {PAGE}\nown\n{PAGE}\n{PAGE}");
    assert_eq!(fixture.python(&script), expected);
}

fn datagrams_reach_the_host() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!(
        "import socket
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.settimeout(20); lost = 0
        for number in range(200):
            udp.sendto(b'%d' % number, (host, {port}))
            data, source = udp.recvfrom(99)
            lost += data != b'%d' % number or source[:2] != (host, {port})
        print(lost)
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(('127.0.0.1', 0)); a.settimeout(20)
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.settimeout(20); b.sendto(b'own', a.getsockname())
data, source = a.recvfrom(9); a.sendto(data, source); print(b.recv(9).decode())"
    );
    assert_eq!(fixture.python(&script), "0\n0\nown");
}

fn datagrams_into_cluster_are_told() {
    let fixture = Fixture::new();
    let script = "import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3): udp.sendto(b'x', ('10.96.0.5', 8125))
input()";
    let running = fixture.start(&[], &["python3", "-c", script]);
    let line = running.line_with("DatagramsLost");
    assert!(line.contains("10.96.0.5:8125"), "{line}");
}

/// Every address is local there, so the kernel would answer for all of them.
fn ping_answers_only_for_itself() {
    let script = "import socket, struct
def ping(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as icmp:
        icmp.settimeout(20)
        # Errors are reported with the next call.
        icmp.setsockopt(socket.IPPROTO_IP, 11, 1)
        icmp.sendto(b'\\x08\\0' + struct.pack('>HHH', 0xf7ff, 0, 0), (host, 0))
        try: return icmp.recv(99)[0]
        except OSError as error: return type(error).__name__
print(ping('127.0.0.1'), ping('10.96.0.5'))";
    assert_eq!(Fixture::new().python(script), "0 OSError");
}

/// Serves "inside" at every port of the list until the end of its input.
const SERVE: &str = "import socket, sys, threading
def serve(host, port):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    def loop():
        while True:
            peer, _ = listener.accept(); peer.sendall(b'inside'); peer.close()
    threading.Thread(target=loop, daemon=True).start()
    return listener
";

fn listeners_are_published() {
    let fixture = Fixture::new();
    let ports: [u16; 3] = std::array::from_fn(|_| server::closed_port());
    let [loopback, any, ipv6] = ports;
    let script = format!(
        "{SERVE}serve('127.0.0.1', {loopback}); serve('0.0.0.0', {any}); serve('::1', {ipv6}); threading.Event().wait()"
    );
    let running = fixture.start(&["--publish"], &["python3", "-c", &script]);
    for _ in ports {
        let line = running.line_with("fixture: inside");
        assert!(line.ends_with("Ok(\"connected\")"), "{line}");
    }
    for port in ports {
        let mut text = String::new();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("published");
        stream.read_to_string(&mut text).expect("a text");
        assert_eq!(text, "inside", "{port}");
    }
    drop(running);
    wait_for("the ports are free", || {
        ports
            .iter()
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
    });
}

fn second_command_joins_the_first() {
    let (fixture, port) = (Fixture::new(), server::start());
    let label = format!("{LABEL}{}", fixture.dir().display());
    let enter = |script: &str| {
        let mut command = fixture.command(fixture.program());
        command.args(["enter", &label, "bash", "-c", script]);
        command.env("PWD", fixture.dir());
        output(command)
    };
    let own = server::closed_port();
    let script = format!(
        "{SERVE}serve('127.0.0.1', {own}); print('up', flush=True); threading.Event().wait()"
    );
    assert_eq!(enter("true").status.code(), Some(1));
    let mut command = fixture.inside(&["python3", "-c", &script]);
    command.env("PWD", fixture.dir());
    let running = Running::start(command);
    running.line_with("up");
    let output = enter(&format!(
        "curl -sS http://web.shop:{port}/; echo; cat </dev/tcp/127.0.0.1/{own}; echo; pwd; grep CapEff /proc/self/status; exit 5"
    ));
    let dir = fixture.dir().display();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text,
        format!("{PAGE}\ninside\n{dir}\nCapEff:\t0000000000000000\n"),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(5));
}

fn published_port_is_no_loop() {
    let (fixture, port) = (Fixture::new(), server::closed_port());
    let script = format!(
        "{SERVE}import time
listener = serve('127.0.0.1', {port})
input()
listener.shutdown(socket.SHUT_RDWR); listener.close()
for _ in range(50):
    try: socket.create_connection(('127.0.0.1', {port}), 20); print('connected')
    except ConnectionRefusedError: pass
print('done', flush=True); threading.Event().wait()"
    );
    let mut command = fixture.command(fixture.program());
    command.args(["run", "--publish", "--", "python3", "-c", &script]);
    command.stdin(std::process::Stdio::piped());
    let mut running = Running::start(command);
    running.line_with("Published");
    drop(running.engine.stdin.take().map(|mut stdin| {
        use std::io::Write;
        stdin.write_all(b"\n")
    }));
    assert_eq!(running.line_with("done"), "done");
    wait_for("the port is free again", || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
}

fn taken_port_is_told() {
    let fixture = Fixture::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let script = format!(
        "{SERVE}serve('127.0.0.1', {port}); serve('127.0.0.1', 80); threading.Event().wait()"
    );
    let running = fixture.start(&["--publish"], &["python3", "-c", &script]);
    let lines = [
        running.line_with("NotPublished"),
        running.line_with("NotPublished"),
    ];
    let text = lines.join("\n");
    assert!(
        text.contains(&format!("NotPublished({port}, Os {{ code: 98")),
        "{text}"
    );
    assert!(text.contains("NotPublished(80, Os { code: 13"), "{text}");
}

//! Names: the cluster's, the host's, and those that never leave.

use libtest_mimic::Trial;

use super::fixture::{Fixture, trial};
use super::run::INNER;
use super::server::{self, PAGE};

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("names::short_and_full", short_and_full),
        trial(
            "names::learned_address_is_the_clusters",
            learned_address_is_the_clusters,
        ),
        trial("names::unknown_and_localhost", unknown_and_localhost),
        trial("names::any_resolver_is_ours", any_resolver_is_ours),
        trial(
            "names::outside_names_pass_to_host",
            outside_names_pass_to_host,
        ),
        trial(
            "names::replaced_resolv_conf_is_covered",
            replaced_resolv_conf_is_covered,
        ),
    ]
}

fn short_and_full() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!(
        "for name in web web.shop web.shop.svc web.shop.svc.cluster.local web.shop.svc.cluster.local. both v6; do
           curl -sS http://$name:{port}/; echo
         done
         curl -sS4 http://both:{port}/; echo; curl -sS6 http://both:{port}/"
    );
    let pages: Vec<_> = std::iter::repeat_n(PAGE, 9).collect();
    assert_eq!(fixture.shell(&script), pages.join("\n"));
}

fn learned_address_is_the_clusters() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!("curl -sS http://learned.shop:{port}/");
    assert_eq!(fixture.shell(&script), PAGE);
}

fn unknown_and_localhost() {
    let fixture = Fixture::new();
    let script = "import socket
try: socket.getaddrinfo('none.shop.svc.cluster.local', 1)
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
print(sorted({a[4][0] for a in socket.getaddrinfo('my.localhost', 1)}))";
    assert_eq!(fixture.python(script), "True\n['127.0.0.1', '::1']");
}

/// A query to a resolver that a program knows by itself, by UDP and by TCP.
const ASK: &str = r#"
import socket, struct, sys
def name(text): return b''.join(bytes([len(l)]) + l.encode() for l in text.split('.')) + b'\0'
query = b'\x12\x34\x01\x00\0\1\0\0\0\0\0\0' + name('web.shop.svc.cluster.local') + b'\0\1\0\1'
for to in ('192.0.2.53', '10.96.0.10', '127.0.0.1'):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(20)
        for _ in range(3):
            udp.sendto(query, (to, 53))
            answer, source = udp.recvfrom(999)
            assert source == (to, 53) and answer[:2] == query[:2], source
        print('udp', socket.inet_ntoa(answer[-4:]))
with socket.create_connection(('192.0.2.53', 53), 20) as tcp:
    tcp.sendall(struct.pack('>H', len(query)) + query)
    answer = tcp.recv(999)
    print('tcp', socket.inet_ntoa(answer[-4:]))
"#;

fn any_resolver_is_ours() {
    let expected = "udp 10.96.0.5\nudp 10.96.0.5\nudp 10.96.0.5\ntcp 10.96.0.5";
    assert_eq!(Fixture::new().python(ASK), expected);
}

/// The host of the inner namespace is the outer one, whose resolver knows this name.
fn outside_names_pass_to_host() {
    let (fixture, port) = (Fixture::new(), server::start());
    let program = fixture.program();
    let script = format!(
        "{INNER}=1 {program} run -- bash -euc '
           curl -sS http://web.shop.svc.cluster.local:{port}/; echo
           curl -sS http://web.shop.svc.inner.local:{port}/; echo
           curl -sS http://web:{port}/; echo
           grep -c inner.local /etc/resolv.conf'
         grep -c cluster.local /etc/resolv.conf"
    );
    assert_eq!(
        fixture.shell(&script),
        format!("{PAGE}\n{PAGE}\n{PAGE}\n1\n1")
    );
}

/// In a mount namespace with an /etc of its own, in which this user may rename files as a resolver does.
const RENAMED: &str = r#"
mkdir copy; mount -t tmpfs none copy; cp -a /etc/. copy/ 2>/dev/null || true; mount -n --move copy /etc; rmdir copy
coproc run { exec "$0" run -- bash -euc '
  while read -r line; do getent hosts web.shop >/dev/null && head -1 /etc/resolv.conf; done' 2>&3; } 3>&2
out=${run[0]} in=${run[1]}
echo go >&$in; read -r line <&$out; echo "$line"
for i in 1 2 3; do
  echo "nameserver 192.0.2.$i" >/etc/next; mv /etc/next /etc/resolv.conf
  until echo go >&$in; read -r line <&$out; [ "$line" = "search shop.svc.cluster.local svc.cluster.local cluster.local" ]; do :; done
  echo "$line"; cat /etc/resolv.conf
done
rm /etc/resolv.conf; echo "nameserver 192.0.2.9" >/etc/resolv.conf
until echo go >&$in; read -r line <&$out; [ "$line" = "search shop.svc.cluster.local svc.cluster.local cluster.local" ]; do :; done
echo "$line"
exec {in}>&-
"#;

fn replaced_resolv_conf_is_covered() {
    let fixture = Fixture::new();
    let mut command = fixture.command("unshare");
    let words = [
        "--user",
        "--map-root-user",
        "--mount",
        "bash",
        "-euc",
        RENAMED,
    ];
    command.args(words).arg(fixture.program());
    let output = super::fixture::output(command);
    let text = String::from_utf8_lossy(&output.stdout);
    let covered = "search shop.svc.cluster.local svc.cluster.local cluster.local";
    let outside: Vec<_> = (1..=3)
        .map(|number| format!("{covered}\nnameserver 192.0.2.{number}\n"))
        .collect();
    let expected = format!("{covered}\n{}{covered}\n", outside.concat());
    assert_eq!(
        text,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! Programs of every kind find the cluster by name, without a flag, a library or a variable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;

use super::fixture::{Fixture, output, trial};
use super::server::{self, PAGE};

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("programs::python", python),
        trial("programs::perl_and_bash", perl_and_bash),
        trial("programs::node", node),
        trial("programs::static_go", static_go),
        trial("programs::psql_to_a_real_postgres", psql_to_a_real_postgres),
    ]
}

fn python() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!(
        "import socket, urllib.request
print(urllib.request.urlopen('http://web.shop:{port}/').read().decode())
stream = socket.create_connection(('web', {port}))
print(stream.getpeername(), stream.getsockname()[0])"
    );
    let expected = format!("{PAGE}\n('10.96.0.5', {port}) 198.18.0.1");
    assert_eq!(fixture.python(&script), expected);
}

fn perl_and_bash() {
    let (fixture, port) = (Fixture::new(), server::start());
    let perl = format!(
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => \"web.shop.svc\", PeerPort => {port}) or die $!; print $s \"ehello\"; read $s, my $t, 5; print \"$t\\n\";"
    );
    let script = format!(
        "perl -e '{perl}'
         exec 3<>/dev/tcp/web.shop/{port}; printf ehi >&3; head -c 2 <&3"
    );
    assert_eq!(fixture.shell(&script), "hello\nhi");
}

fn node() {
    let (fixture, port) = (Fixture::new(), server::start());
    let closed = server::closed_port();
    let script = format!(
        "const dns = require('dns').promises, http = require('http'), net = require('net');
         const get = (host) => new Promise((done, fail) => http.get({{host, port: {port}}}, (answer) => {{
           let text = ''; answer.on('data', (part) => text += part).on('end', () => done(text)); }}).on('error', fail));
         const failure = (host) => new Promise((done) => net.connect({closed}, host).on('error', (error) => done((error.errors || [error])[0].code)).on('connect', () => done('connected')));
         (async () => {{
           console.log((await dns.lookup('web.shop')).address);
           console.log(await dns.resolve4('web.shop.svc.cluster.local'), await dns.resolve6('v6.shop.svc.cluster.local'));
           console.log(await get('web'), await (await fetch('http://both.shop:{port}/')).text());
           console.log(await failure('web.shop'), await dns.resolveSrv('_x._tcp.web.shop.svc.cluster.local').catch((error) => error.code));
         }})();"
    );
    let output = output(fixture.inside(&["node", "-e", &script]));
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = format!(
        "10.96.0.5\n[ '10.96.0.5' ] [ 'fd00:96::5' ]\n{PAGE} {PAGE}\nECONNREFUSED ENOTFOUND\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{error}");
}

const GO: &str = r#"package main
import ("errors"; "fmt"; "io"; "net/http"; "net"; "os"; "syscall")
func main() {
	answer, err := http.Get("http://" + os.Args[1] + "/")
	if err != nil { panic(err) }
	page, _ := io.ReadAll(answer.Body)
	_, err = net.Dial("tcp", os.Args[2])
	fmt.Println(string(page), errors.Is(err, syscall.ECONNREFUSED))
}
"#;

fn static_go() {
    let (fixture, port) = (Fixture::new(), server::start());
    let closed = server::closed_port();
    let (source, program) = (fixture.dir().join("main.go"), fixture.dir().join("prog"));
    fs::write(&source, GO).expect("a file");
    let mut build = Command::new(find("go", &["/usr/local/go/bin"]));
    build.env("CGO_ENABLED", "0").args(["build", "-o"]);
    let built = build.arg(&program).arg(&source).output().expect("go");
    assert!(built.status.success(), "{built:?}");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
    let program = program.to_str().expect("a path");
    let open = format!("web.shop:{port}");
    let closed = format!("web.shop.svc.cluster.local:{closed}");
    let output = output(fixture.inside(&[program, &open, &closed]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, format!("{PAGE} true\n"), "{output:?}");
}

/// A server of its own on the loopback that is the cluster, and the client in the namespace.
fn psql_to_a_real_postgres() {
    let (fixture, port) = (Fixture::new(), server::closed_port());
    let closed = server::closed_port();
    let versions = fs::read_dir("/usr/lib/postgresql").expect("apt-get install postgresql");
    let dirs: Vec<_> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    let dirs: Vec<_> = dirs
        .iter()
        .map(|dir| dir.to_str().expect("a path"))
        .collect();
    let initdb = find("initdb", &dirs);
    let server = initdb.with_file_name("postgres");
    let mut prepare = fixture.command(initdb.to_str().expect("a path"));
    prepare.args(["-D", "data", "-U", "dev", "-A", "trust", "--no-sync"]);
    let prepared = output(prepare);
    assert!(prepared.status.success(), "{prepared:?}");
    let mut server = fixture.command(server.to_str().expect("a path"));
    let port = port.to_string();
    server.args(["-D", "data", "-k", "", "-h", "127.0.0.1", "-F", "-p", &port]);
    let _server = Server(server.spawn().expect("a server"));
    let script = format!(
        "until psql -h postgres.shop -p {port} -U dev postgres -Atc 'select 1 + 1' 2>err; do grep -E 'refused|starting' err >&2; sleep 0.1; done
         (psql -h postgres.shop.svc -p {closed} -U dev postgres -c '' 2>&1 || true) | grep -o 'Connection refused'"
    );
    assert_eq!(fixture.shell(&script), "2\nConnection refused");
}

/// A server that ends with its test.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Its word for "at once", which ends its own processes too.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.0.wait();
    }
}

/// A program of the PATH or of these directories.
fn find(program: &str, dirs: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).collect::<Vec<_>>();
    let dirs = path.into_iter().chain(dirs.iter().map(PathBuf::from));
    let mut places = dirs.map(|dir| dir.join(program));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| panic!("{program}: not found; hint: apt-get install {program}"))
}

//! A command in a network namespace of its own, from the command line: the real binary as an ordinary user, a real directory, a relay and a real end in the cluster, whose services are two ports of
//! this machine. Where the kernel gives an ordinary user no such namespace, these tests fail; `injector doctor` says why.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use injector::outbound::RelayGate;
use intercept_outbound::server::{Limits, Options, serve};
use intercept_outbound::{
    ABSENCE, ClusterConfig, DIAL, Policy, RECHECK, ResolvConf, Resolver, SERVICE_RANGE, Service,
    Tempo,
};
use intercept_tunnel::relay_end::RelayEnd;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use support::{BINARY, Place, Ran, Running, developer_server, ran, wait_until};

/// What the cluster's service `inventory` answers.
const STOCK: &str = "42 in stock";

/// `nobody`, where the tests run as root.
const ORDINARY: u32 = 65_534;

/// Where the system's own programs are; a version manager's may lie where others may not look.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A place whose cluster has the services `inventory` and `closed`, and an ordinary user there.
struct Cluster {
    place: Place,
    /// A copy of the binary that every user may run.
    binary: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("bound");
        let address = listener.local_addr().expect("bound");
        let place = Place::with(|workload| workload.relay.outbound = Some(address));
        let options = options(place.control);
        runtime.spawn(serve(listener, options, std::future::pending()));
        Self::of(place, runtime)
    }

    fn of(place: Place, runtime: tokio::runtime::Runtime) -> Self {
        let binary = place.path().join("injector");
        // By another process: one of this process that is started meanwhile would keep the file open for writing, and it could not be executed.
        let copied = Command::new("cp").arg(BINARY).arg(&binary).status();
        assert!(copied.expect("cp").success());
        fs::create_dir(place.path().join("home")).expect("a home");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("readable");
        if rustix::process::geteuid().is_root() {
            give(place.path());
        }
        Self {
            place,
            binary,
            _runtime: runtime,
        }
    }

    /// The command of an ordinary user.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        self.ordinary(&mut command);
        command.args(arguments);
        command
    }

    fn ordinary(&self, command: &mut Command) {
        let home = self.place.path().join("home");
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &home)
            .env("USER", "bob")
            .env("INJECTOR_ENVOY", self.place.envoy())
            .current_dir(home)
            .stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(ORDINARY).gid(ORDINARY);
        }
    }

    /// `intercept orders FLAGS -- CMD`, to its end.
    fn intercept(&self, flags: &[&str], words: &[&str]) -> Ran {
        ran(&mut self.intercepting(flags, words))
    }

    fn intercepting(&self, flags: &[&str], words: &[&str]) -> Command {
        let all = [&["intercept", "orders"], flags, &["--"], words].concat();
        self.command(&all)
    }

    /// What a Python program prints, as the command of an intercept.
    #[track_caller]
    fn python(&self, flags: &[&str], script: &str) -> Ran {
        let ran = self.intercept(flags, &["python3", "-c", script]);
        assert_eq!(ran.code, Some(0), "{script}\n{ran:?}");
        ran
    }

    /// An intercept whose command has said that it is ready.
    #[track_caller]
    fn start(&self, flags: &[&str], words: &[&str]) -> Running {
        let running = Running::new(&mut self.intercepting(flags, words));
        wait_until(
            || running.stdout().contains("ready"),
            || format!("not ready: {}", running.stderr()),
        );
        running
    }

    /// The processes that run its binary or work in its home.
    fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |path: std::io::Result<PathBuf>| {
            path.is_ok_and(|path| path.starts_with(self.place.path()))
        };
        numbers
            .filter(|pid: &u32| {
                is_ours(fs::read_link(format!("/proc/{pid}/exe")))
                    || is_ours(fs::read_link(format!("/proc/{pid}/cwd")))
            })
            .collect()
    }

    #[track_caller]
    fn wait_for_no_process(&self) {
        wait_until(
            || self.processes().is_empty(),
            || format!("left: {:?}", self.processes()),
        );
    }
}

/// Gives a directory to the ordinary user.
fn give(path: &Path) {
    chown(path, Some(ORDINARY), Some(ORDINARY)).expect("another owner");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path());
        }
    }
}

fn options(control: SocketAddr) -> Options {
    let conf = ResolvConf {
        search: vec!["shop.svc.test".to_owned()],
        ndots: 5,
        ..ResolvConf::default()
    };
    let service = |name: &str, port| Service {
        name: name.to_owned(),
        port: 80,
        target: SocketAddr::from(([127, 0, 0, 1], port)),
    };
    let services = vec![
        service("inventory", developer_server(STOCK)),
        service("echo", echo_server()),
        service("closed", closed_port()),
    ];
    Options {
        gate: Arc::new(RelayGate::new(vec![RelayEnd::tcp(control)])),
        config: ClusterConfig {
            domain: "test".to_owned(),
            search: conf.search.clone(),
            ndots: conf.ndots,
            ranges: vec![SERVICE_RANGE.into()],
        },
        resolver: Resolver::new(conf, services),
        policy: Policy::default(),
        limits: Limits::default(),
        tempo: Tempo::default(),
        dial: DIAL,
        grace: Duration::ZERO,
        recheck: RECHECK,
        absence: ABSENCE,
        audit: tokio::sync::mpsc::channel(64).0,
    }
}

/// A service that answers each request of a connection with its head.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone()?).lines();
                let mut stream = stream;
                loop {
                    let head = lines.by_ref().map_while(Result::ok);
                    let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                    if head.is_empty() {
                        return std::io::Result::Ok(());
                    }
                    let text = head.join("\n") + "\n";
                    let length = text.len();
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
                    )?;
                }
            });
        }
    });
    port
}

/// Nothing listens there. The kernel gives a port again only after all others.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("bound").port()
}

fn port_flag(port: u16) -> String {
    format!("--port={port}")
}

/// A server of Python's standard library that says `ready`; `answer` makes the text of an answer.
fn server(port: u16, answer: &str) -> String {
    format!(
        "import http.server, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = ({answer}).encode()
        self.send_response(200); self.send_header('content-length', str(len(text))); self.end_headers(); self.wfile.write(text)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), Handler)
print('ready', flush=True)
server.serve_forever()"
    )
}

#[test]
fn command_reaches_services_by_name() {
    let cluster = Cluster::new();
    let script = "curl -sS http://inventory/; echo; curl -sS http://inventory.shop.svc.test/x";
    let ran = cluster.intercept(&["--port=1"], &["bash", "-euc", script]);
    let expected = format!("{STOCK}\n{STOCK}");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), &*expected),
        "{ran:?}"
    );
    let note = "note: bash reaches the cluster: short names of shop.svc.test, and *.test\n";
    assert!(ran.stderr.contains(note), "{ran:?}");
    assert!(!ran.stderr.contains("warning"), "{ran:?}");
    let ran = cluster.python(
        &["--outbound=namespace", "--port=1"],
        "import urllib.request; print(urllib.request.urlopen('http://inventory').read().decode())",
    );
    assert_eq!(ran.stdout, format!("{STOCK}\n"));
    cluster.wait_for_no_process();
}

#[test]
fn refused_and_denied_are_what_they_are() {
    let cluster = Cluster::new();
    let script = "import errno, socket
def outcome(host, port=80):
    try: socket.create_connection((host, port), 30); return 'connected'
    except socket.gaierror as error: return 'no such name'
    except OSError as error: return errno.errorcode[error.errno]
print(outcome('inventory'), outcome('closed'), outcome('192.0.2.77'), outcome('none.shop.svc.test'))";
    let ran = cluster.python(&["--port=1"], script);
    let expected = "connected ECONNREFUSED EHOSTUNREACH no such name\n";
    assert_eq!(ran.stdout, expected, "{ran:?}");
    let warning = "warning: 192.0.2.77:80: refused in the cluster: ";
    assert!(ran.stderr.contains(warning), "{ran:?}");
}

#[test]
fn server_inside_answers_with_what_it_asks() {
    let cluster = Cluster::new();
    let port = closed_port();
    let answer = "'orders: ' + urllib.request.urlopen('http://inventory').read().decode()";
    let running = cluster.start(
        &[&port_flag(port)],
        &["python3", "-c", &server(port, answer)],
    );
    let entry = cluster.place.intercepts().remove("orders-bob");
    let address = entry.expect("written").address;
    let intercepted = cluster.place.request(&address, "/api");
    assert!(intercepted.contains("orders: 42 in stock"), "{intercepted}");
    running.says(" GET /api 200 ");
    // The same server, as people and browsers of this machine reach it.
    running.says(&format!(
        "note: port {port} of the command is 127.0.0.1:{port} of this machine"
    ));
    let url = format!("http://127.0.0.1:{port}/");
    let page = Command::new("curl").args(["-sS", &url]).output();
    let page = page.expect("curl");
    assert_eq!(String::from_utf8_lossy(&page.stdout), "orders: 42 in stock");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, Some(143));
    assert!(cluster.place.intercepts().is_empty());
    cluster.wait_for_no_process();
}

#[test]
fn server_outside_is_reached_too() {
    let cluster = Cluster::new();
    let flag = port_flag(developer_server("from the host"));
    let running = cluster.start(&[&flag], &["bash", "-c", "echo ready; sleep 600"]);
    let entry = cluster.place.intercepts().remove("orders-bob");
    let answer = cluster.place.request(&entry.expect("written").address, "/");
    assert!(answer.contains("from the host"), "{answer}");
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn port_without_listener_falls_back() {
    let cluster = Cluster::new();
    let port = closed_port();
    let script = server(port, "'first'").replace(
        "server.serve_forever()",
        "server.handle_request(); server.server_close(); print('closed', flush=True); input()",
    );
    let mut command = cluster.intercepting(&[&port_flag(port)], &["python3", "-c", &script]);
    command.stdin(Stdio::piped());
    let running = Running::new(&mut command);
    running.says("of this machine\n");
    let entry = cluster.place.intercepts().remove("orders-bob");
    let address = entry.expect("written").address;
    assert!(cluster.place.request(&address, "/").contains("first"));
    wait_until(|| running.stdout().contains("closed"), || running.stderr());
    // Its published port may still be open, and must not be taken for a server of this machine.
    let answer = cluster.place.request(&address, "/");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    running.says(&format!(
        "fell back to the cluster (port {port} refused the connection)"
    ));
}

#[test]
fn ports_are_published_as_asked() {
    let cluster = Cluster::new();
    for (flag, is_published) in [("--publish=off", false), ("--publish=1,2", false)] {
        let port = closed_port();
        let script = server(port, "'x'");
        let running = cluster.start(&[flag, "--port=1"], &["python3", "-c", &script]);
        std::thread::sleep(Duration::from_secs(1));
        let outside = TcpStream::connect(("127.0.0.1", port));
        assert_eq!(outside.is_ok(), is_published, "{flag}");
        running.signal(Signal::TERM);
        running.end();
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("bound").port();
    let flag = format!("--publish={port}");
    let script = server(port, "'x'");
    let running = cluster.start(&[&flag, "--port=1"], &["python3", "-c", &script]);
    running.says(&format!(
        "warning: port {port} of the command is not 127.0.0.1:{port} of this machine: another program listens there"
    ));
}

#[test]
fn further_command_joins_by_exec() {
    let cluster = Cluster::new();
    let port = closed_port();
    let script = server(port, "'mine'");
    let running = cluster.start(&["--port=1", "--publish=off"], &["python3", "-c", &script]);
    let script = format!(
        "curl -sS http://inventory/; echo; curl -sS http://127.0.0.1:{port}/; echo; echo $INJECTOR_INTERCEPT; id -u; pwd; exit 7"
    );
    let ran = ran(&mut cluster.command(&["exec", "orders-bob", "--", "bash", "-c", &script]));
    let user = match rustix::process::geteuid().is_root() {
        true => ORDINARY,
        false => rustix::process::geteuid().as_raw(),
    };
    let home = cluster.place.path().join("home");
    let expected = format!("{STOCK}\nmine\norders-bob\n{user}\n{}\n", home.display());
    assert_eq!((ran.code, &*ran.stdout), (Some(7), &*expected), "{ran:?}");
    // Signals go to the command itself, which is this very process.
    let trap = "trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done";
    let mut command = cluster.command(&["exec", "orders-bob", "--", "bash", "-c", trap]);
    let joined = Running::new(&mut command);
    wait_until(|| joined.stdout().contains("ready"), || joined.stderr());
    joined.signal(Signal::INT);
    assert_eq!(joined.end().code, Some(9));
    running.signal(Signal::TERM);
    running.end();
    cluster.wait_for_no_process();
}

#[test]
fn exec_says_what_is_missing() {
    let cluster = Cluster::new();
    let exec = |name: &str| ran(&mut cluster.command(&["exec", name, "--", "true"]));
    let ran = exec("orders-bob");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .starts_with("error: orders-bob: intercept not found\n\nhint: injector list"),
        "{ran:?}"
    );
    let flags = ["--port=1", "--outbound=off"];
    let running = cluster.start(&flags, &["bash", "-c", "echo ready; sleep 600"]);
    let ran = exec("orders-bob");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let error = "error: orders-bob: no command of this intercept has a network namespace on this machine\n\nhint: give it one: injector intercept orders --name=orders-bob --replace --outbound=namespace -- CMD";
    assert!(ran.stderr.starts_with(error), "{ran:?}");
    let ran = support::ran(&mut cluster.command(&["exec", "orders-bob", "--", "nosuchcmd"]));
    assert_eq!(ran.code, Some(127), "{ran:?}");
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn command_is_what_it_is_without() {
    let cluster = Cluster::new();
    let script =
        "id -u; id -g; pwd; ulimit -Sn; cat /proc/self/comm; ps -o ppid= $$ | wc -l; exit 7";
    let all = ["off", "namespace"].map(|how| {
        let flag = format!("--outbound={how}");
        let ran = cluster.intercept(&[&flag, "--port=1"], &["bash", "-c", script]);
        assert_eq!(ran.code, Some(7), "{ran:?}");
        ran.stdout
    });
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0].lines().count(), 6, "{}", all[0]);
}

#[test]
fn interrupt_of_the_group_is_the_commands() {
    let cluster = Cluster::new();
    let trap =
        "trap 'curl -sS http://inventory/; exit 9' INT; echo ready; while :; do sleep 0.01; done";
    let mut command = cluster.intercepting(&["--port=1"], &["bash", "-c", trap]);
    command.process_group(0);
    let running = Running::new(&mut command);
    wait_until(|| running.stdout().contains("ready"), || running.stderr());
    let group = Pid::from_raw(i32::try_from(running.pid()).expect("small")).expect("not 0");
    kill_process_group(group, Signal::INT).expect("it runs");
    let ran = running.end();
    // Its network is there until it has ended.
    assert!(ran.stdout.contains(STOCK), "{ran:?}");
    assert_eq!(ran.code, Some(9), "{ran:?}");
    cluster.wait_for_no_process();
}

#[test]
fn kills_leave_no_process() {
    let cluster = Cluster::new();
    let words = ["bash", "-c", "echo ready $$; exec sleep 600"];
    let running = cluster.start(&["--port=1"], &words);
    let pid = running
        .stdout()
        .trim()
        .rsplit(' ')
        .next()
        .map(str::to_owned);
    let pid: i32 = pid.expect("a line").parse().expect("a number");
    kill_process(Pid::from_raw(pid).expect("not 0"), Signal::KILL).expect("it runs");
    assert_eq!(running.end().code, Some(137));
    cluster.wait_for_no_process();
    let running = cluster.start(&["--port=1", "--replace"], &words);
    running.signal(Signal::KILL);
    assert_eq!(running.end().code, None);
    cluster.wait_for_no_process();
}

#[test]
fn off_and_closed_clusters_change_nothing() {
    let cluster = Cluster::new();
    let words = ["bash", "-c", "getent hosts inventory || echo none"];
    let ran = cluster.intercept(&["--port=1", "--outbound=off"], &words);
    assert_eq!(ran.stdout, "none\n", "{ran:?}");
    assert!(!ran.stderr.contains("reaches the cluster"), "{ran:?}");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let closed = Cluster::of(Place::new(), runtime);
    let ran = closed.intercept(&["--port=1"], &words);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), "none\n"), "{ran:?}");
    assert!(!ran.stderr.contains("the cluster:"), "{ran:?}");
    let ran = closed.intercept(&["--port=1", "--outbound=namespace"], &words);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text = "error: outbound connections: not open at ";
    assert!(ran.stderr.contains(text), "{ran:?}");
    assert!(
        ran.stderr.contains("hint: an operator opens them"),
        "{ran:?}"
    );
    let usage = support::ran(&mut closed.command(&["intercept", "orders", "--outbound=namespace"]));
    assert_eq!(usage.code, Some(2), "{usage:?}");
}

/// Runs `injector` where this user may make no network namespace.
fn where_none_may_be(cluster: &Cluster, arguments: &[&str]) -> Ran {
    where_none_may_be_with(cluster, arguments, "")
}

/// The same with this value of HTTP_PROXY.
fn where_none_may_be_with(cluster: &Cluster, arguments: &[&str], proxy: &str) -> Ran {
    let mut command = Command::new("unshare");
    cluster.ordinary(&mut command);
    command.env("HTTP_PROXY", proxy);
    let script = "echo 0 >/proc/sys/user/max_net_namespaces; exec \"$0\" \"$@\"";
    command
        .args(["--user", "--map-root-user", "bash", "-c", script])
        .arg(&cluster.binary)
        .args(arguments);
    ran(&mut command)
}

#[test]
fn failed_step_is_named_with_its_cure() {
    let cluster = Cluster::new();
    let why = "network namespace: unshare: No space left on device (os error 28); user.max_net_namespaces allows no more of them";
    let cure = "sudo sysctl -w user.max_net_namespaces=15000";
    let intercept = ["intercept", "orders", "--port=1"];
    let command = ["--", "bash", "-c", "curl -sS http://inventory/; exit 7"];
    let ran = where_none_may_be(&cluster, &[&intercept[..], &command].concat());
    assert_eq!((ran.code, &*ran.stdout), (Some(7), STOCK), "{ran:?}");
    let warnings: Vec<_> = ran.stderr.matches("warning: ").collect();
    assert_eq!(warnings.len(), 1, "{ran:?}");
    assert!(
        ran.stderr.contains(why) && ran.stderr.contains(cure),
        "{ran:?}"
    );
    let insist = [&intercept[..], &["--outbound=namespace"], &command].concat();
    let ran = where_none_may_be(&cluster, &insist);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let error = format!("error: {why}\n\nhint: {cure}\n");
    assert!(ran.stderr.ends_with(&error), "{ran:?}");
    assert!(cluster.place.intercepts().is_empty());
    let ran = where_none_may_be(&cluster, &["doctor"]);
    assert_eq!(ran.stdout, format!("! {why}\n  {cure}\n"), "{ran:?}");
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn doctor_says_how_connections_wait() {
    let cluster = Cluster::new();
    let ran = ran(&mut cluster.command(&["doctor"]));
    let found =
        "✓ commands can have a network namespace; their connections wait for the cluster (hold: ";
    assert!(ran.stdout.starts_with(found), "{ran:?}");
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// Programs that read the variables, one by one: HTTP_PROXY (a plain request), HTTPS_PROXY (CONNECT), ALL_PROXY (SOCKS5).
const BY_PROXY: &str = "for proxy in '' \"--proxytunnel --proxy $HTTPS_PROXY\" \"--proxy $ALL_PROXY\"; do
  curl -sS $proxy http://inventory/; echo; curl -sS $proxy http://inventory.shop.svc.test/x; echo
done
test \"$http_proxy$https_proxy$all_proxy\" = \"$HTTP_PROXY$HTTPS_PROXY$ALL_PROXY\"; echo $NODE_USE_ENV_PROXY";

#[test]
fn proxy_reaches_services_by_name() {
    let cluster = Cluster::new();
    let flags = ["--outbound=proxy", "--port=1"];
    let ran = cluster.intercept(&flags, &["bash", "-euc", BY_PROXY]);
    let expected = format!("{}1\n", format!("{STOCK}\n").repeat(6));
    assert_eq!((ran.code, &*ran.stdout), (Some(0), &*expected), "{ran:?}");
    let note = "note: bash, where it heeds HTTP_PROXY or ALL_PROXY, reaches the cluster: short names of shop.svc.test, and *.test\n";
    assert!(ran.stderr.contains(note), "{ran:?}");
    cluster.wait_for_no_process();
}

#[test]
fn proxy_says_what_is_refused() {
    let cluster = Cluster::new();
    let script = "code() { curl -s -o /dev/null -w '%{http_code} %{http_connect} ' \"$@\" || echo $?; }
code http://closed/; code --proxytunnel http://closed/; code --proxy $ALL_PROXY http://closed/
code http://192.0.2.77/; code http://none.shop.svc.test/
code ${HTTP_PROXY/http:/--proxy http:} http://inventory/; echo
bare=${HTTP_PROXY#*@}
code --proxy http://$bare http://inventory/; echo
code --proxy http://injector:guess@$bare http://inventory/; echo
code --proxy socks5h://$bare http://inventory/; code --proxy socks5h://injector:guess@$bare http://inventory/";
    let flags = ["--outbound=proxy", "--port=1"];
    let ran = cluster.intercept(&flags, &["bash", "-c", script]);
    let lines: Vec<_> = ran.stdout.lines().collect();
    let expected = [
        "502 000 000 502 56",
        "000 000 97",
        "403 000 502 000 200 000 ",
        "407 000 ",
        "407 000 ",
        "000 000 97",
        "000 000 97",
    ];
    assert_eq!(lines, expected, "{ran:?}");
}

#[test]
fn proxy_leaves_the_rest_to_this_machine() {
    let cluster = Cluster::new();
    let port = developer_server("from the host");
    let script = format!(
        "curl -sS --noproxy '' http://127.0.0.1:{port}/; echo; curl -sS --noproxy '' --proxy $ALL_PROXY http://localhost:{port}/; echo
curl -sS --noproxy '' --proxytunnel http://localhost:{port}/; echo; curl -sS http://localhost:{port}/"
    );
    let flags = ["--outbound=proxy", "--port=1"];
    let ran = cluster.intercept(&flags, &["bash", "-euc", &script]);
    let expected = ["from the host"; 4].join("\n");
    assert_eq!((ran.code, &*ran.stdout), (Some(0), &*expected), "{ran:?}");
}

#[test]
fn own_proxy_is_kept() {
    let cluster = Cluster::new();
    let words = ["bash", "-c", "echo $HTTP_PROXY $NO_PROXY"];
    let mut command = cluster.intercepting(&["--port=1"], &words);
    command.env("HTTP_PROXY", "http://proxy.corp:3128");
    let ran = ran(&mut command);
    let expected =
        "http://proxy.corp:3128 localhost,127.0.0.1,::1,.svc,.test,.shop.svc.test,192.0.2.0/24\n";
    assert_eq!((ran.code, &*ran.stdout), (Some(0), expected), "{ran:?}");

    let words = [&["intercept", "orders", "--port=1", "--"], &words[..]].concat();
    let ran = where_none_may_be_with(&cluster, &words, "http://proxy.corp:3128");
    assert_eq!(ran.stdout, "http://proxy.corp:3128\n", "{ran:?}");
    let warning = "warning: bash does not reach the cluster (HTTP_PROXY is kept, and --outbound=proxy would replace it): network namespace: unshare: ";
    assert!(ran.stderr.contains(warning), "{ran:?}");
}

#[test]
fn requests_get_the_intercepts_header() {
    let cluster = Cluster::new();
    let script = "curl -sS http://echo/1 http://echo/2; curl -sS -H 'coder: Eve' http://echo/3";
    let words = ["bash", "-euc", script];
    let count = |ran: &Ran, text: &str| ran.stdout.matches(text).count();
    let flags = ["--port=1", "--http-header=Coder=Bob"];
    let ran = cluster.intercept(&flags, &words);
    let counts = ["GET /", "Coder: Bob\n", "coder: Eve\n"].map(|text| count(&ran, text));
    assert_eq!(counts, [3, 2, 1], "{ran:?}");
    let note = "note: plain HTTP requests of bash into the cluster get Coder: Bob where that is missing (--no-mark: they do not)\n";
    assert!(ran.stderr.contains(note), "{ran:?}");

    let automatic = cluster.intercept(&["--port=1"], &words);
    assert_eq!(count(&automatic, "x-intercept-id: "), 3, "{automatic:?}");
    let baggage = cluster.intercept(&["--port=1", "--baggage=dev=bob"], &words);
    assert_eq!(count(&baggage, "baggage: dev=bob\n"), 3, "{baggage:?}");
    for flags in [
        &["--port=1", "--http-header=Coder=Bob", "--no-mark"][..],
        &["--port=1", "--http-header=Coder=Bob|Bobby"],
    ] {
        let ran = cluster.intercept(flags, &words);
        let counts = ["GET /", "Bob"].map(|text| count(&ran, text));
        assert_eq!(counts, [3, 0], "{ran:?}");
        assert!(!ran.stderr.contains("--no-mark"), "{ran:?}");
    }
}

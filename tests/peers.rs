//! Third-party test suites through the product.
//!
//! grpc-go's interop client and server, Autobahn's WebSocket cases, h2spec.
//!
//! Each runs unmatched and matched. Matched, there is no server behind the workload; unmatched, there is none behind the intercept: a response proves the way that it took.
//!
//! `make test-peers` builds the suites (`peers/build`) and runs this.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::app::App;
use harness::binaries;
use harness::client::{Ask, Client};
use harness::command::Process;
use harness::intercept::Intercept;
use harness::mesh::Mesh;
use harness::plan::Plan;
use harness::ports::Port;
use harness::wait;
use intercept_manifest::facts::Protocol;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// The cases that need no credentials of a cloud.
///
/// `pick_first_unary` is missing: it needs servers that report their names, which grpc-go's does not.
const INTEROP: [&str; 19] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
    "orca_per_rpc",
    "orca_oob",
    // Again at the end, to check that no case before it broke the path.
    "empty_unary",
];

/// The load balancer that uses a server's load reports, for the cases about it.
const ORCA: &str =
    r#"--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

/// A suite's server, and a workload with an intercept.
struct Setup {
    mesh: Mesh,
    _intercept: Intercept,
    _nobody: Port,
}

impl Setup {
    /// A workload of that protocol.
    ///
    /// Matched, requests reach the server through bob's intercept of all requests (some requests of the suites cannot have a header). Unmatched, the server is the app,
    /// beside an intercept that matches none of them.
    async fn new(server: SocketAddr, protocol: Protocol, is_matched: bool) -> Self {
        let nobody = Port::reserve();
        let (app, developer, condition) = match is_matched {
            true => (nobody.addr(), server, "--http-header=all"),
            false => (server, nobody.addr(), "--http-header=Coder=Bob"),
        };
        let mesh = Plan::at(app, protocol).start().await;
        let port = developer.port().to_string();
        let bob = mesh.developer("bob");
        Self {
            _intercept: bob.intercept_port(&port, &[condition]).await,
            mesh,
            _nobody: nobody,
        }
    }
}

/// Runs a program of a suite, which must succeed. Returns its output.
async fn run(what: &str, dir: &Path, deadline: Duration, command: Command) -> String {
    let mut process = Process::start("suite", dir, command);
    let status = wait::within(deadline, what, async || process.exited()).await;
    assert!(status.success(), "{what}: {status}\n{}", process.output());
    process.output()
}

/// grpc-go's server, on a reserved port.
async fn interop_server(dir: &TempDir) -> (Process, SocketAddr) {
    let addr = Port::reserve().addr();
    let mut command = Command::new(binaries::peer("interop-server"));
    command.arg(format!("--port={}", addr.port()));
    let server = Process::start("interop-server", dir.path(), command);
    wait::until("the interop server listens", async || {
        TcpStream::connect(addr).await.is_ok()
    })
    .await;
    (server, addr)
}

async fn interop(protocol: Protocol, is_matched: bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_server, addr) = interop_server(&dir).await;
    let setup = Setup::new(addr, protocol, is_matched).await;
    for case in INTEROP {
        let mut command = Command::new(binaries::peer("interop-client"));
        command
            .args(["--server_host=127.0.0.1", "--use_tls=false"])
            .arg(format!("--server_port={}", setup.mesh.port()))
            .arg(format!("--test_case={case}"))
            // By default each of ten calls may take a second, which is too little on a busy machine.
            .arg("--soak_per_iteration_max_acceptable_latency_ms=10000")
            .arg("--soak_overall_timeout_seconds=60");
        if case.starts_with("orca") {
            command.arg(ORCA);
        }
        let what = format!("{case}, {protocol:?}, matched: {is_matched}");
        run(&what, dir.path(), 4 * wait::DEADLINE, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_interop_passes_on_a_grpc_port() {
    interop(Protocol::Grpc, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_interop_passes_matched_on_a_grpc_port() {
    interop(Protocol::Grpc, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_interop_passes_on_an_auto_port() {
    interop(Protocol::Auto, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_interop_passes_matched_on_an_auto_port() {
    interop(Protocol::Auto, true).await;
}

/// How many cases Autobahn has of each kind.
///
/// Echoes, pings, reserved bits, opcodes, fragments, UTF-8, closing, large messages, and compression.
const AUTOBAHN: [(&[&str], usize); 2] = [
    (
        &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
        247,
    ),
    (&["9.*", "12.1.*", "13.1.*"], 90),
];

async fn autobahn(is_matched: bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Process::start("echo", dir.path(), Command::new(binaries::peer("echo")));
    let addr = server
        .wait_output_with("tells where it listens", |output| {
            output.trim().strip_prefix("listening on ")?.parse().ok()
        })
        .await;
    let setup = Setup::new(addr, Protocol::Auto, is_matched).await;
    for (kinds, count) in AUTOBAHN {
        let mut command = Command::new(binaries::peer("python/bin/kosoku"));
        command.args(["-m", "fuzzingclient", "-p", "2", "-o"]);
        command.arg(dir.path().join("reports"));
        for kind in kinds {
            command.args(["-i", kind]);
        }
        command.arg(setup.mesh.addr().to_string());
        let what = format!("Autobahn {kinds:?}, matched: {is_matched}");
        let output = run(&what, dir.path(), 20 * wait::DEADLINE, command).await;
        let passed = format!("{count} cases passed");
        assert!(output.contains(&passed), "{what}: not {passed}:\n{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn autobahns_cases_pass() {
    autobahn(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn autobahns_cases_pass_matched() {
    autobahn(true).await;
}

/// The findings of h2spec at a relay, each with the reason why it is right.
const H2SPEC: [(&str, &str); 5] = [
    // It expects a DATA frame: the response to a request without a tunnel has no body.
    (
        "generic/2",
        "Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    ),
    (
        "generic/2",
        "Sends a PRIORITY frame on half-closed (remote) stream",
    ),
    // The port supports HTTP/1.1 as well, and answers in that.
    ("http2/3.5", "Sends invalid connection preface"),
    // It sends a little more than 16 KiB; the relay accepts frames of 64.
    (
        "http2/4.2",
        "Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
    ),
    // Each request is answered and gone before the limit is reached.
    (
        "http2/5.1.2",
        "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    ),
];

/// The number of runs; only findings of every run count.
///
/// A request without a tunnel is answered at once. If that is faster than the invalid frame after it, h2spec sees this response instead of the reaction to the frame.
const H2SPEC_RUNS: usize = 6;

/// The number of its cases.
const H2SPEC_CASES: usize = 146;

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_finds_what_is_known_and_harms_no_tunnel() {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Mesh::of(&app).await;
    let bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let done = Arc::new(AtomicBool::new(false));
    let bystander = tokio::spawn(stand_by(mesh.h1(), Arc::clone(&done)));

    let relay = mesh.files().workload().relay.data;
    let known = H2SPEC.map(|(section, case)| (section.to_owned(), case.to_owned()));
    let mut found = h2spec(relay, mesh.dir()).await;
    for _ in 1..H2SPEC_RUNS {
        found.retain(|case| !known.contains(case));
        if found.is_empty() {
            break;
        }
        let again = h2spec(relay, mesh.dir()).await;
        found.retain(|case| again.contains(case));
    }
    found.retain(|case| !known.contains(case));
    assert_eq!(found, BTreeSet::new(), "{H2SPEC_RUNS} times");

    done.store(true, Ordering::SeqCst);
    let asked = bystander.await.expect("no request of the bystander fails");
    assert!(asked > 20, "{asked} requests stood by");
    let output = bob.process.output();
    assert!(!output.contains("the tunnel is"), "{output}");
}

/// Runs it once. Returns the findings.
async fn h2spec(relay: SocketAddr, dir: &Path) -> BTreeSet<(String, String)> {
    let report = dir.join("h2spec.xml");
    let mut command = Command::new(binaries::peer("h2spec"));
    command
        .args(["--strict", "--timeout", "5"])
        .args(["--host", &relay.ip().to_string()])
        .args(["--port", &relay.port().to_string(), "--junit-report"])
        .arg(&report);
    // It exits with 1 if it has findings.
    let mut process = Process::start("h2spec", dir, command);
    wait::within(10 * wait::DEADLINE, "h2spec ends", async || {
        process.exited()
    })
    .await;
    let report = std::fs::read_to_string(&report).expect("its report");
    let cases = report.matches("<testcase ").count();
    assert_eq!(cases, H2SPEC_CASES, "{report}");
    failures(&report)
}

/// Sends bob's requests meanwhile. Returns their number.
async fn stand_by(client: Client, done: Arc<AtomicBool>) -> usize {
    let mut asked = 0;
    while !done.load(Ordering::SeqCst) {
        let answer = client
            .must(Ask::post("/", 5_000).header("coder", "Bob"))
            .await;
        assert_eq!((answer.status.as_u16(), answer.by()), (200, "server"));
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asked
}

/// Section and name of each case with an `<error>` in a JUnit report.
fn failures(report: &str) -> BTreeSet<(String, String)> {
    let cases = report.split("<testcase ").skip(1);
    let failed = cases.filter(|case| case.contains("<error>") || case.contains("<failure"));
    failed
        .map(|case| {
            let value = |name: &str| {
                let (_, rest) = case
                    .split_once(&format!("{name}=\""))
                    .expect("an attribute");
                let value = rest.split('"').next().expect("a value");
                value.replace("&#34;", "\"").replace("&quot;", "\"")
            };
            (value("package"), value("classname"))
        })
        .collect()
}

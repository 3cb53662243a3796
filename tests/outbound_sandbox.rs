//! Connections into the cluster, as a new user types them.
//!
//! The sandbox's second service, which only "the cluster" reaches.

use std::net::SocketAddr;

use harness::app::App;
use harness::command::Process;
use harness::intercept::Developer;
use harness::ports::Port;
use harness::sandbox::Sandbox;
use harness::wait;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The local port in a line of the output.
fn port_of(output: &str, destination: &str) -> Option<SocketAddr> {
    let end = format!(" leads to {destination} in the cluster");
    let line = output.lines().find_map(|line| line.strip_suffix(&end))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn leads_to(process: &mut Process, destination: &str) -> SocketAddr {
    process
        .wait_output_with("says where it leads", |output| port_of(output, destination))
        .await
}

/// The whole response, or what arrived before a reset.
async fn ask(address: SocketAddr, head: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let request = format!("{head}\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.map(|_| answer).map_err(|error| error.to_string())
}

/// A port that no other test gets.
fn free_port() -> u16 {
    Port::reserve().number()
}

async fn assert_inventory(address: SocketAddr) {
    let answer = ask(address, "GET /stock HTTP/1.1")
        .await
        .expect("an answer");
    assert!(
        answer.contains(r#""service":"inventory","path":"/stock""#),
        "{answer}"
    );
}

fn forward(developer: &Developer, arguments: &[&str]) -> Process {
    let all = [&["forward"], arguments].concat();
    Process::start("forward", developer.home(), developer.command(&all))
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_reaches_what_only_the_cluster_does() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .process
        .wait_output("injector forward inventory:80:8090")
        .await;
    let developer = sandbox.developer("bob");
    let chosen = format!("inventory:80:{}", free_port());
    let mut process = forward(&developer, &[&chosen, "inventory.sandbox:80"]);
    let short = leads_to(&mut process, "inventory:80").await;
    let full = leads_to(&mut process, "inventory.sandbox:80").await;
    assert_inventory(short).await;
    assert_inventory(full).await;

    process.signal(Signal::INT);
    assert_eq!(process.wait().await.code(), Some(0));
    assert!(
        TcpStream::connect(short).await.is_err(),
        "the port is closed"
    );
    let record = sandbox
        .process
        .wait_output_with("writes a record", |output| {
            let line = output.lines().find(|line| line.starts_with('{'))?;
            serde_json::from_str::<Value>(line).ok()
        })
        .await;
    assert_eq!(
        (
            &record["intercept"],
            &record["destination"],
            &record["outcome"]
        ),
        (&"forward-bob".into(), &"inventory:80".into(), &"ok".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn intercept_forwards_while_it_lives() {
    let server = App::start("server").await;
    let sandbox = Sandbox::start().await;
    let developer = sandbox.developer("bob");
    let chosen = format!("inventory:80:{}", free_port());
    let arguments = ["--http-header=Coder=Bob", "--forward", &chosen];
    let mut intercept = developer.intercept(&server, &arguments).await;
    let port = leads_to(&mut intercept.process, "inventory:80").await;
    assert_inventory(port).await;
    assert_eq!(intercept.leave().await.code(), Some(0));
    assert!(
        TcpStream::connect(port).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_intercept_forwards_too() {
    let server = App::start("server").await;
    let sandbox = Sandbox::start().await;
    let developer = sandbox.developer("bob");
    let port = server.port().to_string();
    let mut arguments = vec![
        "intercept",
        "orders",
        "--port",
        &port,
        "--detach",
        "--http-header=Coder=Bob",
    ];
    let chosen = format!("inventory:80:{}", free_port());
    arguments.extend(["--forward", &chosen]);
    let output = developer.run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let port = port_of(&said, "inventory:80").expect(&said);
    assert_inventory(port).await;
    let left = developer.run(&["leave", "orders-bob"]);
    assert_eq!(left.status.code(), Some(0), "{left:?}");
    wait::until("the port is closed", async || {
        TcpStream::connect(port).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_destination_is_reset_and_said() {
    let sandbox = Sandbox::start().await;
    let developer = sandbox.developer("bob");
    let own = sandbox.addr().port();
    let destination = format!("localhost:{own}");
    let mut process = forward(&developer, &[&destination, "nobody:80"]);
    let denied = leads_to(&mut process, &destination).await;
    let unknown = leads_to(&mut process, "nobody:80").await;
    for port in [denied, unknown] {
        let answer = ask(port, "GET / HTTP/1.1").await;
        assert!(
            answer.as_ref().is_err_and(|error| error.contains("reset")),
            "{answer:?}"
        );
    }
    let start = format!("warning: {destination}: refused in the cluster: ");
    let line = process
        .wait_output_with("says why", |output| {
            output
                .lines()
                .find_map(|line| Some(line.strip_prefix(&start)?.to_owned()))
        })
        .await;
    assert!(line.ends_with(" is never dialled: loopback"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secret_is_refused_with_a_text() {
    let sandbox = Sandbox::start().await;
    let file = std::fs::read(sandbox.envoy().join("workload.json")).expect("the workload's file");
    let workload: Value = serde_json::from_slice(&file).expect("JSON");
    let outbound = workload["relay"]["outbound"].as_str().expect("an address");
    let outbound = outbound.parse().expect("an address");
    let hello = |secret: &str| {
        format!(
            "GET /outbound HTTP/1.1\r\nupgrade: intercept-h2-out\r\nx-intercept-outbound-version: 1\r\nx-intercept-tunnel-secret: {secret}\r\nx-intercept-tunnel-name: a\r\nx-intercept-tunnel-instance: b"
        )
    };
    let foreign = ask(outbound, &hello(&"ab".repeat(32)))
        .await
        .expect("an answer");
    assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
    assert!(
        foreign.contains("no intercept with this secret has a tunnel at the relay"),
        "{foreign}"
    );
    let invalid = ask(outbound, &hello("s3cret")).await.expect("an answer");
    assert!(
        invalid.starts_with("HTTP/1.1 400 ") && !invalid.contains("s3cret"),
        "{invalid}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_port_is_an_error_when_chosen() {
    let sandbox = Sandbox::start().await;
    let developer = sandbox.developer("bob");
    let own = sandbox.addr().port();
    let output = developer.run(&["forward", &format!("inventory:80:{own}")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("address already in use") && said.contains("hint: "),
        "{said}"
    );
}

/// Python's own server on this port; each answer is what `inventory` answers, which it asks by name.
fn asking_server(port: u16) -> String {
    format!(
        "import http.server, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = b'here: ' + urllib.request.urlopen('http://inventory' + self.path).read()
        self.send_response(200); self.send_header('content-length', str(len(text))); self.end_headers(); self.wfile.write(text)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('127.0.0.1', {port}), Handler).serve_forever()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn command_answers_with_what_the_cluster_says() {
    let sandbox = Sandbox::start().await;
    let developer = sandbox.developer("bob");
    let port = free_port();
    let (flag, script) = (format!("--port={port}"), asking_server(port));
    let arguments = [
        "intercept",
        "orders",
        &flag,
        "--http-header=Coder=Bob",
        "--outbound=namespace",
        "--",
        "python3",
        "-c",
        &script,
    ];
    let mut intercept = developer.start(developer.command(&arguments)).await;
    let process = &mut intercept.process;
    process
        .wait_output("note: python3 reaches the cluster: short names, and *.sandbox")
        .await;
    process
        .wait_output(&format!(
            "note: port {port} of the command is 127.0.0.1:{port} of this machine"
        ))
        .await;
    let own = ask(sandbox.addr(), "GET /stock HTTP/1.1\r\ncoder: Bob").await;
    let own = own.expect("an answer");
    let stock = r#"here: {"service":"inventory","path":"/stock""#;
    assert!(own.contains(stock), "{own}");
    let other = ask(sandbox.addr(), "GET /stock HTTP/1.1").await;
    assert!(!other.expect("an answer").contains("here: "));

    let curl = [
        "exec",
        "orders-bob",
        "--",
        "curl",
        "-sS",
        "http://inventory.sandbox/x",
    ];
    let joined = developer.run(&curl);
    let text = String::from_utf8_lossy(&joined.stdout).into_owned();
    assert!(
        text.contains(r#""service":"inventory","path":"/x""#),
        "{joined:?}"
    );
    // Python's code for its SIGINT.
    assert_eq!(intercept.leave().await.code(), Some(130));
}

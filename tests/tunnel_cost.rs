//! The tunnel's cost for a request, in user instructions of each end.
//!
//! Callgrind's counts hardly depend on the machine's load. One test, since both ends run under valgrind.

use std::path::Path;
use std::process::Command;

use harness::app::App;
use harness::binaries;
use harness::callgrind::Counts;
use harness::client::{Ask, Client};
use harness::command::Process;
use harness::mesh::Mesh;
use harness::wait;

/// The limits for a GET and a POST: relay, developer's end.
const MOST: [[f64; 2]; 2] = [[98_000.0, 99_000.0], [124_000.0, 129_000.0]];

/// Requests before counting, so that nothing counted happens for the first time.
const WARM_UP: usize = 100;
/// Requests that are counted.
const COUNTED: usize = 500;

/// A program under callgrind.
struct Profiled {
    process: Process,
    counts: Counts,
}

impl Profiled {
    fn start(name: &str, dir: &Path, envoy: &Path, arguments: &[&str]) -> Self {
        let counts = Counts::new();
        let words = counts.command_line(&[]);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg(binaries::injector())
            .args(arguments)
            .env("INJECTOR_ENVOY", envoy)
            .env("HOME", dir);
        Self {
            process: Process::start(name, dir, command),
            counts,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_cost_little_at_both_ends() {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mut mesh = Mesh::of(&app).await;
    drop(mesh.take_relay());
    let (dir, envoy) = (mesh.dir().to_owned(), mesh.files().path().to_owned());
    let relay = mesh.files().workload().relay.clone();
    let (data, control) = (relay.data.to_string(), relay.control.to_string());
    let listen = ["relay", "--listen", &data, "--control", &control];
    let far = Profiled::start("counted-relay", &dir, Path::new(""), &listen);
    let port = server.port().to_string();
    let intercept = ["intercept", "orders", "--port", &port, "--name=counted"];
    let quiet = ["-q", "--http-header=Coder=counted"];
    let near = Profiled::start("counted", &dir, &envoy, &[&intercept[..], &quiet].concat());
    let client = Client::h1(relay.data);
    let address = wait::within(
        std::time::Duration::from_secs(120),
        "requests reach the server",
        async || {
            let address = mesh.address_of("counted")?;
            let ask = Ask::get("/").header("x-intercept-address", &address);
            let answer = client.ask(ask).await.ok()?;
            (answer.by() == "server").then_some(address)
        },
    )
    .await;
    let ends = [&far, &near];
    let kinds = [("GET", Ask::get("/")), ("POST", Ask::post("/", 100))];
    for ((kind, ask), most) in kinds.into_iter().zip(MOST) {
        let ask = ask.header("x-intercept-address", &address);
        for end in ends {
            end.counts.begin(end.process.id());
        }
        send(&client, &ask, WARM_UP).await;
        for end in ends {
            end.counts.forget(end.process.id());
        }
        send(&client, &ask, COUNTED).await;
        let counted = ends.map(|end| end.counts.end(end.process.id()) as f64 / COUNTED as f64);
        println!(
            "instructions per {kind}: {:.0} of the relay, {:.0} of the developer's end",
            counted[0], counted[1]
        );
        for (counted, most) in counted.into_iter().zip(most) {
            assert!(counted > 10_000.0, "{counted}: nothing was measured");
            assert!(counted <= most, "{counted} of at most {most}");
        }
    }
}

async fn send(client: &Client, ask: &Ask, count: usize) {
    for _ in 0..count {
        let answer = client.must(ask.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.by()), (200, "server"));
    }
}

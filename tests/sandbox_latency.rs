//! How long a developer waits: from the moment the command is typed to the first request that reaches the developer machine. One test in its own binary: it is about time.

use std::time::{Duration, Instant};

use harness::app::App;
use harness::client::Client;
use harness::sandbox::Sandbox;
use harness::wait::DEADLINE;

/// The promise, for the median.
const MOST: Duration = Duration::from_millis(150);
/// How often it is measured.
const ROUNDS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_rerouted_at_once() {
    let server = App::start("server").await;
    let sandbox = Sandbox::start().await;
    let developer = sandbox.developer("bob");
    let client = Client::h1(sandbox.addr());
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        // A value of its own, so that no round can be helped by the one before.
        let coder = format!("Bob-{round}");
        let header = format!("--http-header=Coder={coder}");
        assert_ne!(client.get("/", &[("coder", &coder)]).await.by(), "server");
        let port = server.port().to_string();
        let command = developer.command(&["intercept", "orders", "--port", &port, &header]);
        let started = Instant::now();
        let (intercept, time) = tokio::join!(developer.start(command), async {
            while client.get("/", &[("coder", &coder)]).await.by() != "server" {
                let waited = started.elapsed();
                assert!(waited < DEADLINE, "round {round} never came through");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            started.elapsed()
        });
        times.push(time);
        assert_eq!(intercept.leave().await.code(), Some(0));
    }
    times.sort();
    println!("typed → first rerouted request: {times:?}");
    let median = times[ROUNDS / 2];
    assert!(median <= MOST, "{median:?} in the middle of {times:?}");
}

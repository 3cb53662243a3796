//! The time from the command to the first request that reaches the developer machine.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::Client;
use crate::intercept::Developer;
use crate::wait::DEADLINE;

/// The number of measurements.
const ROUNDS: usize = 10;

/// The median over ten intercepts of `orders`.
///
/// `client` sends requests all the while, and `server` is named "server". Prints all ten times.
pub async fn median(developer: &Developer, server: &App, client: &Client) -> Duration {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        // A different value each time, so that no round profits from the previous one.
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
    times[ROUNDS / 2]
}

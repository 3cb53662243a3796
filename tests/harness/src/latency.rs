//! How long it takes from the command to the first request that reaches the developer machine.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::client::Client;
use crate::intercept::Developer;
use crate::wait::DEADLINE;

/// How often it is measured.
const ROUNDS: usize = 10;

/// The median of ten intercepts of `orders`, each made and left; `client` calls it all the while, and `server` is named "server". Prints all ten.
pub async fn median(developer: &Developer, server: &App, client: &Client) -> Duration {
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
    times[ROUNDS / 2]
}

//! How long a developer waits, from the command to the first request that arrives.
//!
//! One test in its own binary, because it measures time.

use std::time::Duration;

use harness::app::App;
use harness::client::Client;
use harness::latency;
use harness::sandbox::Sandbox;

/// The promised limit of the median.
const MOST: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_rerouted_at_once() {
    let (sandbox, server) = (Sandbox::start().await, App::start("server").await);
    let client = Client::h1(sandbox.addr());
    let median = latency::median(&sandbox.developer("bob"), &server, &client).await;
    assert!(median <= MOST, "{median:?}");
}

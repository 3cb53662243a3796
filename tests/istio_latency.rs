//! How long a developer waits on a real mesh, from the command to the first request.
//!
//! With two replicas and a prepared workload. One test in its own binary, because it measures time.

use std::time::Duration;

use harness::app::App;
use harness::cluster::Stage;
use harness::latency;

/// The promised limit of the median.
const MOST: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_rerouted_within_a_second() {
    let (stage, server) = (Stage::new("latency").await, App::start("server").await);
    let median = latency::median(&stage.developer("bob"), &server, &stage.h1()).await;
    assert!(median <= MOST, "{median:?}");
}

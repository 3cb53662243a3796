//! How long a developer waits on a real mesh: from the moment the command is typed to the first request that reaches the developer machine, two replicas, workload
//! prepared. One test in its own binary: it is about time.

use std::time::Duration;

use harness::app::App;
use harness::cluster::Stage;
use harness::latency;

/// The promise, for the median.
const MOST: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_rerouted_within_a_second() {
    let (stage, server) = (Stage::new("latency").await, App::start("server").await);
    let median = latency::median(&stage.developer("bob"), &server, &stage.h1()).await;
    assert!(median <= MOST, "{median:?}");
}

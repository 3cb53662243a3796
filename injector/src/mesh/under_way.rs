//! Requests that are under way to developer machines whose intercepts were removed: waited for before what they may still need is taken away.

use std::time::Duration;

use futures_util::future::join_all;
use intercept_tunnel::presence::{self, HANDOVER, Traffic};
use intercept_tunnel::relay_end::RelayEnd;
use tokio::time::{sleep, timeout};

/// How long they are waited for: a command sees within 5 s that its intercept is gone, and then lets them end for 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until none is under way through these tunnels at any of these relays. `on_wait` is called where some are.
pub async fn wait_idle(relays: &[RelayEnd], addresses: &[&str], on_wait: impl FnOnce()) {
    if !is_any(relays, addresses).await {
        return;
    }
    on_wait();
    let idle = async {
        while is_any(relays, addresses).await {
            sleep(LOOK).await;
        }
        // Some may have been cut off.
        sleep(HANDOVER).await;
    };
    let _ = timeout(PATIENCE, idle).await;
}

/// A relay that does not say has none.
async fn is_any(relays: &[RelayEnd], addresses: &[&str]) -> bool {
    let asking = relays.iter().map(async |relay| {
        let traffic = presence::traffic(relay, addresses).await;
        traffic.contains(&Traffic::UnderWay)
    });
    join_all(asking).await.contains(&true)
}

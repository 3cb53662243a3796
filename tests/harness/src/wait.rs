//! Waiting for a condition, never for a length of time.

use std::time::{Duration, Instant};

/// How long anything on this machine may take before a test calls it broken. Generous: two cores run a whole test binary at once.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `is_met`. Panics, naming `what`, after [`DEADLINE`].
pub async fn until(what: &str, mut is_met: impl AsyncFnMut() -> bool) {
    until_some(what, async || is_met().await.then_some(())).await;
}

/// Waits until `found` has something. Panics, naming `what`, after [`DEADLINE`].
pub async fn until_some<T>(what: &str, found: impl AsyncFnMut() -> Option<T>) -> T {
    within(DEADLINE, what, found).await
}

/// The same for what takes longer, such as a program under a profiler.
pub async fn within<T>(
    deadline: Duration,
    what: &str,
    mut found: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(
            started.elapsed() < deadline,
            "waited {deadline:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Does what blocks, on a thread where it may. A panic there is one here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

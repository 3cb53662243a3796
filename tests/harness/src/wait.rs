//! Waits for conditions, never for a length of time.

use std::time::{Duration, Instant};

/// The timeout of any wait. Generous, because two cores run a whole test binary at once.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `is_met`. Panics with `what` after [`DEADLINE`].
pub async fn until(what: &str, mut is_met: impl AsyncFnMut() -> bool) {
    until_some(what, async || is_met().await.then_some(())).await;
}

/// Waits until `found` returns something. Panics with `what` after [`DEADLINE`].
pub async fn until_some<T>(what: &str, found: impl AsyncFnMut() -> Option<T>) -> T {
    within(DEADLINE, what, found).await
}

/// The same with another timeout, such as for a program under a profiler.
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

/// Runs blocking work on a thread for it. Passes on a panic.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

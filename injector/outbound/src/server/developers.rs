//! What each developer may have at once, over all their connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::hello::Rejection;
use crate::settings::FRAME;

/// DNS questions for each dial.
const QUESTIONS: u32 = 8;
/// How long a dial may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one developer may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections into the cluster that are open or being dialled.
    pub connections: u32,
    /// Dials a second, and eight times as many DNS questions: a short name is looked up in a search list. Up to `connections` of them at once.
    pub dials_per_second: u32,
    /// Bytes from the cluster that wait to be sent to the developer.
    pub memory: u32,
    /// Connections of developer machines under one intercept: a running program has one, and a second one while it reconnects.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2_048,
            dials_per_second: 200,
            memory: 64 << 20,
            sessions: 4,
        }
    }
}

/// All developers that are connected.
pub(super) struct Developers {
    limits: Limits,
    all: Mutex<HashMap<String, Weak<Developer>>>,
}

/// One developer.
pub(super) struct Developer {
    connections: Arc<Semaphore>,
    /// Bytes.
    pub(super) memory: Arc<Semaphore>,
    pub(super) dials: Pace,
    pub(super) questions: Pace,
    limits: Limits,
}

/// Lets a burst pass, then one after the other at an even pace.
pub(super) struct Pace {
    per_second: u32,
    burst: u32,
    /// When the next one has its turn, if there were no burst.
    next: Mutex<Instant>,
}

impl Developers {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            all: Mutex::default(),
        }
    }

    /// Whether there may be one more connection.
    pub(super) fn check(&self, key: &str) -> Result<(), Rejection> {
        let all = lock(&self.all);
        let sessions = all.get(key).map_or(0, Weak::strong_count);
        match sessions < self.limits.sessions {
            true => Ok(()),
            false => Err(Rejection::for_now(
                StatusCode::TOO_MANY_REQUESTS,
                format!("this intercept has {sessions} connections already"),
            )),
        }
    }

    /// What all connections of this developer share, for as long as there is one.
    pub(super) fn enter(&self, key: &str) -> Arc<Developer> {
        let mut all = lock(&self.all);
        all.retain(|_, developer| developer.strong_count() > 0);
        if let Some(developer) = all.get(key).and_then(Weak::upgrade) {
            return developer;
        }
        let developer = Arc::new(Developer::new(self.limits));
        all.insert(key.to_owned(), Arc::downgrade(&developer));
        developer
    }
}

impl Developer {
    fn new(limits: Limits) -> Self {
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self {
            connections: semaphore(limits.connections),
            memory: semaphore(limits.memory.max(FRAME)),
            dials: Pace::new(limits.dials_per_second, limits.connections),
            questions: Pace::new(
                limits.dials_per_second.saturating_mul(QUESTIONS),
                limits.connections.saturating_mul(QUESTIONS),
            ),
            limits,
        }
    }

    /// A place for one connection, at once or not at all.
    ///
    /// # Errors
    /// The limit.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, String> {
        let place = Arc::clone(&self.connections).try_acquire_owned();
        place.map_err(|_| {
            let most = self.limits.connections;
            format!("{most} connections are open already, the most that a developer may have")
        })
    }
}

impl Pace {
    fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            burst,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the turn of the next one.
    ///
    /// # Errors
    /// The limit, where the wait would be too long.
    pub(super) async fn turn(&self) -> Result<(), String> {
        let every = Duration::from_secs(1) / self.per_second;
        let wait = {
            let mut next = lock(&self.next);
            let now = Instant::now();
            let turn = (*next).max(now) + every;
            let wait = turn.saturating_duration_since(now + every * self.burst);
            if wait > PATIENCE {
                return Err(format!("more than {} dials a second", self.per_second));
            }
            *next = turn;
            wait
        };
        sleep(wait).await;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 3,
            dials_per_second: 10,
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dials_after_the_burst_come_evenly() {
        let developer = Developer::new(limits());
        let started = Instant::now();
        for _ in 0..13 {
            developer.dials.turn().await.expect("its turn");
        }
        let elapsed = started.elapsed();
        let expected = Duration::from_secs(1);
        assert!(
            elapsed >= expected && elapsed < expected + Duration::from_millis(20),
            "{elapsed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn dials_that_would_wait_too_long_are_refused() {
        let developer = Arc::new(Developer::new(limits()));
        let mut turns = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let developer = Arc::clone(&developer);
            turns.spawn(async move { developer.dials.turn().await.is_ok() });
        }
        let granted = turns
            .join_all()
            .await
            .into_iter()
            .filter(|is_ok| *is_ok)
            .count();
        assert_eq!(granted, 3 + 5 * 10);
    }

    #[test]
    fn places_come_back() {
        let developer = Developers::new(limits()).enter("a");
        let places: Vec<_> = (0..3).map(|_| developer.place().expect("room")).collect();
        assert!(developer.place().is_err());
        drop(places);
        assert!(developer.place().is_ok());
    }

    #[test]
    fn connections_of_one_intercept_are_bounded() {
        let developers = Developers::new(limits());
        let held: Vec<_> = (0..4).map(|_| developers.enter("a")).collect();
        assert!(developers.check("a").expect_err("full").retry);
        assert_eq!(developers.check("b"), Ok(()));
        drop(held);
        assert_eq!(developers.check("a"), Ok(()));
    }
}

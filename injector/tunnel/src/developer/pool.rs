//! Connections to the developer's server that wait for their next request.
//!
//! Only requests that may be sent twice use them (RFC 9110 §9.2.2): the server may close a connection just as a request is written to it, and then nobody can tell whether it saw that request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::{Instant, sleep};

use super::local::Connection;
use crate::settings;

/// Idle connections, the one used last at the end.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    idle: Vec<(Instant, Connection)>,
    /// Does a task close what is idle for too long?
    swept: bool,
}

impl Pool {
    /// Takes a connection that takes a request at once.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut waiting = self.lock();
        loop {
            let (since, connection) = waiting.idle.pop()?;
            if since.elapsed() < settings::LOCAL_IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose response has ended, unless it is too old or there are enough.
    pub(super) fn put(&self, connection: Connection) {
        if connection.age() > settings::LOCAL_USE {
            return;
        }
        let mut waiting = self.lock();
        if waiting.idle.len() < settings::LOCAL_IDLE_COUNT {
            waiting.idle.push((Instant::now(), connection));
            if !std::mem::replace(&mut waiting.swept, true) {
                tokio::spawn(sweep(Arc::downgrade(&self.0)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.0)
    }
}

/// Closes connections that are idle for too long, until none is left.
async fn sweep(pool: Weak<Mutex<Waiting>>) {
    loop {
        sleep(settings::LOCAL_IDLE).await;
        let Some(waiting) = pool.upgrade() else {
            return;
        };
        let mut waiting = lock(&waiting);
        waiting
            .idle
            .retain(|(since, _)| since.elapsed() < settings::LOCAL_IDLE);
        if waiting.idle.is_empty() {
            waiting.swept = false;
            return;
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // No code that can panic runs under the lock.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

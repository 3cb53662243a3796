//! Dials on behalf of SYNs that wait, and their connections until the program's own is accepted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::transfer::Upstream;
use crate::namespace::queue::Ends;

/// A program whose connection is not accepted by then has given up meanwhile.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Dial<S> {
    Running,
    Done(Upstream<S>, Instant),
}

/// What is known of a SYN's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it is to be dialled.
    Never,
    /// It is being dialled; this SYN is a repetition.
    Dialling,
    /// It is dialled; the program's kernel has not got the answer.
    Done,
}

/// The dials by the ends of their connections.
#[derive(Debug)]
pub struct Pending<S>(Mutex<HashMap<Ends, Dial<S>>>);

impl<S> Default for Pending<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> Pending<S> {
    /// Begins a dial, unless there is one already.
    pub fn begin(&self, ends: Ends) -> Seen {
        let mut dials = self.dials();
        match dials.get(&ends) {
            None => {
                dials.insert(ends, Dial::Running);
                Seen::Never
            }
            Some(Dial::Running) => Seen::Dialling,
            Some(Dial::Done(..)) => Seen::Done,
        }
    }

    /// Keeps the connection of a dial that succeeded.
    pub fn finish(&self, ends: Ends, upstream: Upstream<S>) {
        let dial = Dial::Done(upstream, Instant::now());
        self.dials().insert(ends, dial);
    }

    /// Forgets a dial that failed.
    pub fn fail(&self, ends: Ends) {
        self.dials().remove(&ends);
    }

    /// The connection for a program's that is accepted.
    pub fn take(&self, ends: Ends) -> Option<Upstream<S>> {
        match self.dials().remove(&ends)? {
            Dial::Done(upstream, _) => Some(upstream),
            Dial::Running => None,
        }
    }

    /// Closes the connections that no program has taken in time.
    pub fn sweep(&self) {
        self.dials().retain(|_, dial| match dial {
            Dial::Done(_, since) => since.elapsed() < ABANDONED_AFTER,
            Dial::Running => true,
        });
    }

    fn dials(&self) -> MutexGuard<'_, HashMap<Ends, Dial<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            source: "198.18.0.1:40000".parse().unwrap(),
            destination: "10.96.0.5:80".parse().unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_is_taken_once() {
        let pending = Pending::<()>::default();
        assert_eq!(pending.begin(ends()), Seen::Never);
        assert_eq!(pending.begin(ends()), Seen::Dialling);
        pending.finish(ends(), Upstream::Cluster(()));
        assert_eq!(pending.begin(ends()), Seen::Done);
        assert!(pending.take(ends()).is_some());
        assert!(pending.take(ends()).is_none());
        assert_eq!(pending.begin(ends()), Seen::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_dials_are_swept() {
        let pending = Pending::<()>::default();
        pending.begin(ends());
        pending.finish(ends(), Upstream::Cluster(()));
        tokio::time::advance(ABANDONED_AFTER - Duration::from_secs(1)).await;
        pending.sweep();
        assert_eq!(pending.begin(ends()), Seen::Done);
        tokio::time::advance(Duration::from_secs(1)).await;
        pending.sweep();
        assert_eq!(pending.begin(ends()), Seen::Never);
        tokio::time::advance(ABANDONED_AFTER * 2).await;
        pending.sweep();
        assert_eq!(pending.begin(ends()), Seen::Dialling);
    }
}

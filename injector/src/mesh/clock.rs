//! What time it is by the API server. Leases are counted by its clock; a laptop's may be minutes away.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use intercept_kube::{Cluster, ClusterError};

/// How long a comparison of the two clocks holds.
const FRESH: Duration = Duration::from_secs(60);

/// Two clocks of this machine that differ by more show that it slept, or that its time was set.
const JUMP: Duration = Duration::from_secs(2);

/// The API server's clock, compared with this machine's now and then.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Option<Compared>>);

#[derive(Debug, Clone, Copy)]
struct Compared {
    /// How far the API server's clock is ahead, in seconds.
    ahead: i64,
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    /// Seconds since the epoch. While the API server is away, the last comparison is used.
    pub async fn now(&self, cluster: &Cluster) -> Result<u64, ClusterError> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.filter(Compared::is_fresh) {
            return Ok(known.now());
        }
        match (cluster.server_time().await, known) {
            (Ok(time), _) => {
                let compared = Compared::new(time);
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(compared);
                Ok(time)
            }
            (Err(_), Some(known)) => Ok(known.now()),
            (Err(error), None) => Err(error),
        }
    }
}

impl Compared {
    fn new(server: u64) -> Self {
        Self {
            ahead: i64::try_from(server).unwrap_or(i64::MAX) - here(),
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    fn is_fresh(&self) -> bool {
        let steady = self.steady.elapsed();
        let wall = self.wall.elapsed().unwrap_or(Duration::MAX);
        steady < FRESH && wall.abs_diff(steady) < JUMP
    }

    fn now(&self) -> u64 {
        u64::try_from(here().saturating_add(self.ahead)).unwrap_or(0)
    }
}

fn here() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_time_advances_locally() {
        let server = u64::try_from(here()).unwrap() + 3_600;
        let compared = Compared::new(server);
        assert!(compared.now().abs_diff(server) <= 1);
        assert!(compared.is_fresh());
    }

    #[test]
    fn comparison_expires_after_sleep() {
        let mut compared = Compared::new(5);
        compared.wall -= Duration::from_secs(30);
        assert!(!compared.is_fresh());
    }
}

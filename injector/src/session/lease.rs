//! When a lease expires and when to renew it.
//!
//! By the wall clock, in seconds since the epoch: the monotonic clock stops while the machine is suspended.

use std::time::Duration;

use intercept_core::is_lease_too_long;

/// Pause after a failed renewal, in seconds.
const RETRY: u64 = 10;

/// The lease of one entry.
#[derive(Debug)]
pub struct Lease {
    length: u64,
    expires: u64,
    /// Renewal is due when at most this many seconds are left.
    due_when_left: u64,
    not_before: u64,
    /// Has a missed renewal been reported since the last successful one?
    is_told: bool,
}

impl Lease {
    /// A lease that has not begun.
    pub fn new(length: Duration) -> Self {
        Self {
            length: length.as_secs(),
            expires: 0,
            due_when_left: 0,
            not_before: 0,
            is_told: false,
        }
    }

    /// Limits the length from now on.
    ///
    /// An entry that was written with a longer lease is due for renewal at once.
    pub fn shorten(&mut self, length: Duration) {
        self.length = length.as_secs();
    }

    /// The expiry of a lease that begins now.
    pub fn from(&self, now: u64) -> u64 {
        now.saturating_add(self.length)
    }

    /// Records the expiry that was written.
    ///
    /// Renewal is due at half of the lease, a tenth sooner or later, so that intercepts that started together do not renew together.
    pub fn until(&mut self, expires: u64) {
        let tenth = self.length / 10;
        self.expires = expires;
        self.due_when_left = self.length / 2 - tenth + rand::random_range(0..=2 * tenth);
        self.not_before = 0;
        self.is_told = false;
    }

    /// Should the missing renewal be reported now? True once, after renewal became due.
    pub fn is_in_danger(&mut self, now: u64) -> bool {
        let is_due = self.expires.saturating_sub(now) <= self.due_when_left;
        is_due && self.is_news()
    }

    /// Should a failed renewal be reported now? True once until a renewal succeeds.
    pub fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    /// Has a missed renewal been reported since the last successful one?
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The expiry, as far as it is known here.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Has the lease expired?
    pub fn is_over(&self, now: u64) -> bool {
        self.expires <= now
    }

    /// Is it time to renew? `expires` is the entry's value.
    pub fn is_due(&mut self, expires: u64, now: u64) -> bool {
        self.expires = expires;
        let is_near = expires.saturating_sub(now) <= self.due_when_left;
        let is_wanted = is_near || is_lease_too_long(expires, now, self.length);
        is_wanted && self.may_be_tried(now)
    }

    /// Has the pause after a failed renewal ended?
    pub fn may_be_tried(&self, now: u64) -> bool {
        now >= self.not_before
    }

    /// Records a failed renewal, which delays the next attempt.
    pub fn failed(&mut self, now: u64) {
        self.not_before = now.saturating_add(RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_half_of_the_lease_a_tenth_sooner_or_later() {
        for _ in 0..100 {
            let mut lease = Lease::new(Duration::from_secs(1_000));
            let expires = lease.from(5_000);
            lease.until(expires);
            assert!(!lease.is_due(expires, 5_399));
            assert!(lease.is_due(expires, 5_600));
        }
    }

    #[test]
    fn a_failed_renewal_is_not_repeated_at_once() {
        let mut lease = Lease::new(Duration::from_secs(1_000));
        lease.until(6_000);
        lease.failed(5_700);
        assert!(!lease.is_due(6_000, 5_709) && !lease.may_be_tried(5_709));
        assert!(lease.is_due(6_000, 5_710) && lease.may_be_tried(5_710));
    }

    #[test]
    fn a_renewal_that_failed_is_told_once_until_one_succeeds() {
        let mut lease = Lease::new(Duration::from_secs(1_000));
        lease.until(6_000);
        assert!(!lease.is_told());
        assert!(lease.is_news() && !lease.is_news());
        assert!(lease.is_told() && !lease.is_in_danger(5_900));
        lease.until(7_000);
        assert!(!lease.is_told() && lease.is_news());
    }

    #[test]
    fn a_lease_that_is_longer_than_allowed_by_now_is_due_at_once() {
        let mut lease = Lease::new(Duration::from_secs(10_000));
        lease.until(15_000);
        assert!(!lease.is_due(15_000, 5_000));
        lease.shorten(Duration::from_secs(1_000));
        assert!(lease.is_due(15_000, 5_000));
        lease.failed(5_000);
        assert!(!lease.is_due(15_000, 5_009));
        let expires = lease.from(5_010);
        lease.until(expires);
        assert!(!lease.is_due(expires, 5_010));
        assert!(lease.is_due(expires, 5_610));
    }

    #[test]
    fn that_nobody_renews_a_lease_is_told_once_from_half_of_it_on() {
        let mut lease = Lease::new(Duration::from_secs(1_000));
        lease.until(6_000);
        assert!(!lease.is_in_danger(5_399));
        assert!(lease.is_in_danger(5_600));
        assert!(!lease.is_in_danger(5_900));
        lease.until(7_000);
        assert!(lease.is_in_danger(6_600), "a new one");
    }

    #[test]
    fn a_lease_is_over_at_its_end() {
        let mut lease = Lease::new(Duration::from_secs(1_000));
        lease.until(6_000);
        assert!(!lease.is_over(5_999));
        assert!(lease.is_over(6_000));
    }
}

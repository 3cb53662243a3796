//! Keeping an intercept: the lease is renewed, and whoever removed or took the entry is believed.

use std::time::Duration;

use intercept_core::{Intercept, Limits};

use super::Session;
use crate::flags::MIN_LEASE;
use crate::hint::{Failure, Result};
use crate::model::{NotRenewed, Plan};
use crate::words;

impl Session<'_> {
    /// Is the entry still ours and allowed, and does it live long enough?
    pub(super) async fn look(&mut self) -> Result<()> {
        let Seen { entry, limits, now } = match self.seen().await {
            Ok(seen) => seen,
            Err(failure) => {
                self.tell_unseen(&failure).await;
                return Ok(());
            }
        };
        let is_ours = match &entry {
            Some(entry) => entry.address == self.address,
            None => self.lease.is_over(now),
        };
        if let Some(limits) = limits.filter(|_| is_ours) {
            self.keep_to(limits)?;
        }
        match entry {
            Some(entry) if entry.address == self.address && entry.expires > now => {
                self.mend(&entry).await;
                let is_due = self.lease.is_due(entry.expires, now);
                match is_due || (self.is_unseen && self.lease.may_be_tried(now)) {
                    true => self.renew(now).await,
                    false => Ok(()),
                }
            }
            Some(entry) if entry.address == self.address => self.come_back().await,
            None if self.lease.is_over(now) => self.come_back().await,
            Some(entry) => Err(self.taken(&entry.owner)),
            None => Err(self.removed().await),
        }
    }

    async fn seen(&self) -> Result<Seen> {
        let (entry, limits) = match self.target.there().await? {
            Some(mut there) => (there.intercepts.remove(&self.plan.name), Some(there.limits)),
            None => (None, None),
        };
        let now = self.target.now().await?;
        Ok(Seen { entry, limits, now })
    }

    /// The operator may have changed the limits since the entry was written, and the filter holds it against those of now. A shorter lease costs nobody anything; whatever else they forbid,
    /// this intercept cannot do without.
    fn keep_to(&mut self, limits: Limits) -> Result<()> {
        if self.limits.as_ref() == Some(&limits) {
            return Ok(());
        }
        let longest = Duration::from_secs(limits.max_lease_seconds);
        // Shorter ones than `install` knows were written by hand, and would be renewed all the time.
        if (MIN_LEASE..self.plan.lease).contains(&longest) {
            self.shorten_lease(longest);
        }
        self.plan
            .check_limits(&limits, &self.entry())
            .map_err(|failure| {
                let why = format!("the operator has changed the limits: {}", failure.error());
                Failure::failed(why, failure.hint())
            })?;
        self.limits = Some(limits);
        Ok(())
    }

    fn shorten_lease(&mut self, longest: Duration) {
        let [before, after] = [self.plan.lease, longest].map(words::span);
        self.plan.lease = longest;
        self.lease.shorten(longest);
        self.report.warn(&format!(
            "the operator now allows leases of at most {after} (limits.max_lease_seconds): this one of {before} is renewed for {after} each time from now on; meanwhile the cluster may have answered"
        ));
    }

    /// That nobody answers for a while is nobody's business, until it reaches into the lease: a tunnel that stands says nothing of it.
    async fn tell_unseen(&mut self, failure: &Failure) {
        self.report.detail(failure.error());
        // By the last comparison of the clocks, where nobody answers.
        let Ok(now) = self.target.now().await else {
            return;
        };
        if self.lease.is_in_danger(now) {
            let left = Duration::from_secs(self.lease.expires().saturating_sub(now));
            let then = match left {
                Duration::ZERO => "it is over, and meanwhile the cluster answers".to_owned(),
                left => format!(
                    "it ends in {}, and then the cluster answers",
                    words::span(left)
                ),
            };
            self.report.warn(&format!(
                "the lease cannot be renewed at the moment ({}); {then}",
                failure.error()
            ));
        }
    }

    pub(super) async fn renew(&mut self, now: u64) -> Result<()> {
        let expires = self.lease.from(now);
        let renewed = self
            .target
            .renew(&self.plan.name, &self.address, expires)
            .await;
        match renewed {
            Ok(()) => {
                self.is_unseen = false;
                if self.lease.is_told() {
                    self.report.note("the lease is renewed again");
                }
                self.lease.until(expires);
                self.report.detail(&format!(
                    "lease renewed for {}",
                    words::span(self.plan.lease)
                ));
                Ok(())
            }
            Err(NotRenewed::Removed) => Err(self.removed().await),
            Err(NotRenewed::Taken(owner)) => Err(self.taken(&owner)),
            Err(NotRenewed::Failed(why)) => {
                self.lease.failed(now);
                let what = format!("the lease could not be renewed: {why}; trying again");
                match self.lease.is_news() {
                    true => self.report.warn(&what),
                    false => self.report.detail(&what),
                }
                Ok(())
            }
        }
    }

    /// The lease ran out, while the machine slept or nobody could be asked: others may have come in the meantime, so everything is checked as at the start.
    async fn come_back(&mut self) -> Result<()> {
        self.plan.replaces = Some(self.address.clone());
        // Also where nobody says how it ended: the entry may be there by the next look.
        self.is_unseen = true;
        if let Err(failure) = self.add().await {
            // Nobody to ask at the moment, or not every time: the next look tries again.
            if failure.may_pass() {
                self.tell_unseen(&failure).await;
                return Ok(());
            }
            // An API server that comes back refuses everybody for some seconds.
            return match self.seen().await {
                Ok(_) => Err(failure),
                Err(_) => Ok(()),
            };
        }
        self.report
            .note("the lease had run out; the intercept is back");
        Ok(())
    }

    /// The entry is gone: with the preparation of the workload, or alone.
    async fn removed(&self) -> Failure {
        let Plan {
            name, place_flags, ..
        } = &self.plan;
        let what = match self.target.who_removed(name, self.created).await {
            Some(who) => format!("{who} removed this intercept"),
            None => match self.target.there().await {
                Ok(None) => return self.target.gone(name),
                _ => "this intercept was removed".to_owned(),
            },
        };
        Failure::failed(
            format!("{name}: {what}; it is not brought back"),
            format!("injector list{place_flags}"),
        )
    }

    fn taken(&self, owner: &str) -> Failure {
        let Plan {
            name, place_flags, ..
        } = &self.plan;
        Failure::failed(
            format!("{name}: replaced by another intercept of this name, claimed by {owner}"),
            format!("injector status{place_flags}"),
        )
    }
}

/// What is there at one moment.
struct Seen {
    /// The entry of our name.
    entry: Option<Intercept>,
    /// The operator's; `None`: the workload is not prepared any more.
    limits: Option<Limits>,
    /// In seconds since the epoch.
    now: u64,
}

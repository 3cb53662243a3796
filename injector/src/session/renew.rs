//! Renews the lease of an intercept, and notices when another user removed or replaced it.

use std::time::Duration;

use intercept_core::Limits;
use tokio::time::Instant;

use super::Session;
use crate::describe;
use crate::error::{CliError, Result};
use crate::flags::MIN_LEASE;
use crate::model::{NotRenewed, Plan, Seen};

/// How long an intercept continues whose user is denied access to its entry.
const DENIED: Duration = Duration::from_secs(30);

impl Session<'_> {
    /// Checks that the entry is still ours and allowed, and renews its lease when due.
    pub(super) async fn look(&mut self) -> Result<()> {
        let seen = self.target.look(&self.plan.name).await;
        let Seen {
            entry,
            refusal,
            limits,
            now,
        } = match seen {
            Ok(seen) => seen,
            Err(failure) if failure.is_denied() => return self.denied(failure).await,
            Err(failure) => {
                self.tell_unseen(&failure).await;
                return Ok(());
            }
        };
        self.denied_since = None;
        let is_ours = match &entry {
            Some(entry) => entry.address == self.address,
            None => self.lease.is_over(now),
        };
        match limits {
            Some(limits) if is_ours => self.keep_to(limits)?,
            None if is_ours => return Err(self.target.gone(&self.plan.name)),
            _ => {}
        }
        match entry {
            Some(entry) if entry.address == self.address && entry.expires > now => {
                self.tell_refusal(refusal);
                match self.lease.is_due(entry.expires, now) {
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

    /// Reports once why no proxy has the entry, for instance because others take up the room.
    fn tell_refusal(&mut self, refusal: Option<String>) {
        if self.refusal == refusal {
            return;
        }
        match &refusal {
            Some(why) => self.report.warn(&format!(
                "{}: {why}; meanwhile the cluster answers",
                self.plan.name
            )),
            None => self
                .report
                .note(&format!("{}: it is accepted again", self.plan.name)),
        }
        self.refusal = refusal;
    }

    /// Applies limits that the operator has changed since the entry was written.
    ///
    /// The filter checks the entry against the current ones.
    ///
    /// A shorter lease is harmless, so the session adapts. Any other limit that forbids the entry ends the intercept.
    fn keep_to(&mut self, limits: Limits) -> Result<()> {
        if self.limits.as_ref() == Some(&limits) {
            return Ok(());
        }
        let longest = Duration::from_secs(limits.max_lease_seconds);
        // `install` writes no shorter ones: they were written by hand, and would mean constant renewals.
        if (MIN_LEASE..self.plan.lease).contains(&longest) {
            self.shorten_lease(longest);
        }
        self.plan
            .check_limits(&limits, &self.entry())
            .map_err(|failure| {
                let why = format!("the operator has changed the limits: {}", failure.error());
                CliError::failed(why, failure.hint())
            })?;
        self.limits = Some(limits);
        Ok(())
    }

    fn shorten_lease(&mut self, longest: Duration) {
        let [before, after] = [self.plan.lease, longest].map(describe::span);
        self.plan.lease = longest;
        self.lease.shorten(longest);
        self.report.warn(&format!(
            "the operator now allows leases of at most {after} (limits.max_lease_seconds): this one of {before} is renewed for {after} each time from now on; meanwhile the cluster may have answered"
        ));
    }

    /// Warns that the entry cannot be read, but only once the lease is at risk.
    ///
    /// An open tunnel works without the API server.
    async fn tell_unseen(&mut self, failure: &CliError) {
        self.report.detail(failure.error());
        // While the API server is unreachable, by the last comparison of the clocks.
        let Ok(now) = self.target.now().await else {
            return;
        };
        if self.lease.is_in_danger(now) {
            let left = Duration::from_secs(self.lease.expires().saturating_sub(now));
            let then = match left {
                Duration::ZERO => "it is over, and meanwhile the cluster answers".to_owned(),
                left => format!(
                    "it ends in {}, and then the cluster answers",
                    describe::span(left)
                ),
            };
            self.report.warn(&format!(
                "the lease cannot be renewed at the moment ({}); {then}",
                failure.error()
            ));
        }
    }

    /// Ends the intercept once its user has been denied access for [`DENIED`].
    ///
    /// A role binding that is being replaced is missing for seconds; in a deleted namespace it is gone for good, and the entry can be neither read nor renewed.
    async fn denied(&mut self, failure: CliError) -> Result<()> {
        let since = *self.denied_since.get_or_insert_with(Instant::now);
        if since.elapsed() < DENIED {
            self.tell_unseen(&failure).await;
            return Ok(());
        }
        let name = &self.plan.name;
        let why = format!(
            "{name}: you may no longer see this intercept; was its namespace deleted? {}",
            failure.error()
        );
        Err(CliError::failed(why, failure.hint()).denied(true))
    }

    pub(super) async fn renew(&mut self, now: u64) -> Result<()> {
        let expires = self.lease.from(now);
        let renewed = self
            .target
            .renew(&self.plan.name, &self.address, expires)
            .await;
        match renewed {
            Ok(()) => {
                if self.lease.is_told() {
                    self.report.note("the lease is renewed again");
                }
                self.lease.until(expires);
                self.report.detail(&format!(
                    "lease renewed for {}",
                    describe::span(self.plan.lease)
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

    /// Writes the entry again after its lease expired.
    ///
    /// The machine slept, or the API server was unreachable.
    ///
    /// Others may have added intercepts in the meantime, so everything is checked as at the start.
    async fn come_back(&mut self) -> Result<()> {
        self.plan.replaces = Some(self.address.clone());
        if let Err(failure) = self.add().await {
            // The API server is unreachable at the moment, or fails now and then: the next look retries.
            if failure.may_pass() {
                self.tell_unseen(&failure).await;
                return Ok(());
            }
            // An API server that has just started denies all requests for some seconds.
            return match self.target.look(&self.plan.name).await {
                Ok(_) => Err(failure),
                Err(_) => Ok(()),
            };
        }
        self.report
            .note("the lease had run out; the intercept is back");
        Ok(())
    }

    /// The error for an entry that was removed, alone or with the workload's preparation.
    async fn removed(&self) -> CliError {
        let Plan {
            name,
            context_flags,
            ..
        } = &self.plan;
        if let Ok(Seen { limits: None, .. }) = self.target.look(name).await {
            return self.target.gone(name);
        }
        CliError::failed(
            format!("{name}: this intercept was removed; it is not brought back"),
            format!("injector list{context_flags}"),
        )
    }

    fn taken(&self, owner: &str) -> CliError {
        let Plan {
            name,
            context_flags,
            ..
        } = &self.plan;
        CliError::failed(
            format!("{name}: replaced by another intercept of this name, claimed by {owner}"),
            format!("injector status{context_flags}"),
        )
    }
}

//! Keeping an intercept: the lease is renewed, and whoever removed or took the entry is believed.

use std::time::Duration;

use intercept_core::Intercept;

use super::Session;
use crate::backend::NotRenewed;
use crate::hint::{Failure, Result};
use crate::words;

impl Session<'_> {
    /// Is the entry still ours, and does it live long enough?
    pub(super) async fn look(&mut self) -> Result<()> {
        let (entry, now) = match self.seen().await {
            Ok(seen) => seen,
            Err(failure) => {
                self.tell_unseen(&failure).await;
                return Ok(());
            }
        };
        match entry {
            Some(entry) if entry.address == self.address && entry.expires > now => {
                match self.is_unseen || self.lease.is_due(entry.expires, now) {
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

    /// The entry of our name, and what time it is.
    async fn seen(&self) -> Result<(Option<Intercept>, u64)> {
        let entry = self.target.find(&self.plan.name).await?;
        Ok((entry, self.target.now().await?))
    }

    /// That nobody answers for a while is nobody's business, until it reaches into the lease: a tunnel that stands says nothing of it.
    async fn tell_unseen(&mut self, failure: &Failure) {
        self.report.detail(&failure.to_string());
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
                self.report
                    .warn(&format!("the lease could not be renewed: {why}"));
                Ok(())
            }
        }
    }

    /// The lease ran out while the machine slept: others may have come in the meantime, so everything is checked as at the start.
    async fn come_back(&mut self) -> Result<()> {
        self.plan.replaces = Some(self.address.clone());
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
        self.is_unseen = true;
        self.report
            .note("the lease had run out while this machine slept; the intercept is back");
        Ok(())
    }

    async fn removed(&self) -> Failure {
        let who = self.target.who_removed(&self.plan.name).await;
        Failure::failed(
            format!(
                "{}: {} removed this intercept; it is not brought back",
                self.plan.name,
                who.as_deref().unwrap_or("somebody")
            ),
            format!(
                "ask the others, then start it again; what there is: injector list{}",
                self.plan.place_flags
            ),
        )
    }

    fn taken(&self, owner: &str) -> Failure {
        Failure::failed(
            format!(
                "{}: {owner} took this name for another intercept",
                self.plan.name
            ),
            format!("injector status{}", self.plan.place_flags),
        )
    }
}

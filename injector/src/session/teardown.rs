//! The end of an intercept, in an order that costs no request an error.

use std::time::Duration;

use intercept_manifest::cluster::TAKEN;
use intercept_tunnel::developer::Event;
use intercept_tunnel::presence::HANDOVER;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::tunnel::GRACE;
use super::{ENVOY_TIMEOUT, End, Session, killed_by};
use crate::describe;
use crate::error::Result;

/// Pause between two attempts at a change that fails.
const UNDO_PAUSE: Duration = Duration::from_millis(500);

/// How long the proxies have to drop an intercept after a second signal.
///
/// Usually they need a third of it.
const HURRY: Duration = Duration::from_secs(1);

/// How long an entry whose write was cut off may take to appear, and how often to check.
const LATE: Duration = Duration::from_secs(1);
const LATE_LOOK: Duration = Duration::from_millis(100);

impl Session<'_> {
    /// Undoes everything, in this order.
    ///
    /// The entry, so that the filter decides no more requests; the tunnel, once its requests have ended or the grace period is over; the upstream
    /// cluster last, because requests that were cut off still need a host in it.
    pub(super) async fn finish(&mut self, end: End) -> Result<u8> {
        self.report.record(&end.to_string());
        let undone = self.undo().await;
        self.is_undone = undone.is_ok();
        self.close_tunnel().await;
        if let Some(child) = &self.child {
            match end {
                End::Signal(signal) => child.pass(signal),
                End::Failed(_) => child.pass(Signal::TERM),
                End::Child(_) => {}
            }
        }
        let cleared = match undone {
            Ok(()) => self.clear().await,
            Err(failure) => Err(failure),
        };
        let code = match (end, &mut self.child) {
            (End::Failed(failure), child) => {
                if let Some(child) = child {
                    child.end().await;
                }
                Err(failure)
            }
            (End::Child(code), _) => Ok(code),
            (End::Signal(_), Some(child)) => Ok(child.wait().await.unwrap_or(1)),
            (End::Signal(_), None) if self.is_live => Ok(0),
            // The intercept never went live.
            (End::Signal(signal), None) => Ok(killed_by(signal)),
        };
        if let Some(kept) = &self.kept {
            kept.forget();
        }
        let code = code?;
        cleared?;
        Ok(code)
    }

    /// Closes the tunnel, and gives running requests some time to end.
    async fn close_tunnel(&mut self) {
        let report = self.report;
        match self.tunnel.under_way() {
            0 => {}
            count => report.waiting(count, GRACE),
        }
        let on_event = |event| {
            if let Event::Request(line) = event {
                report.request(&line);
            }
        };
        let cut = self.tunnel.close(on_event).await;
        if cut > 0 {
            report.warn(&format!("{} cut off", describe::count(cut, "request")));
        }
    }

    /// Removes the upstream cluster once no request needs it.
    ///
    /// Requests that were cut off or refused by the closing tunnel are first retried elsewhere.
    async fn clear(&self) -> Result<()> {
        self.outlast(HANDOVER).await;
        self.patiently(async || self.target.clear(&self.plan, &self.address).await)
            .await
    }

    /// Waits at least `time`, and until the upstream cluster may be removed.
    ///
    /// Returns at once for a target without upstream clusters.
    async fn outlast(&self, time: Duration) {
        if !self.target.has_clusters() {
            return;
        }
        let until = Instant::now() + time;
        let until = self.added.map_or(until, |added| until.max(added + TAKEN));
        sleep_until(until).await;
    }

    /// Retries a change for a limited time. After that, the entry expires with its lease.
    async fn patiently<T>(&self, change: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + self.target.undo_patience();
        let mut is_told = false;
        loop {
            match change().await {
                Err(failure) if !failure.is_denied() && Instant::now() < deadline => {
                    if !std::mem::replace(&mut is_told, true) {
                        self.report.warn(&format!(
                            "{} cannot be removed at the moment ({}); trying again",
                            self.plan.name,
                            failure.error()
                        ));
                    }
                    sleep(UNDO_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn undo(&mut self) -> Result<()> {
        let remove = async || self.target.remove(&self.plan.name, &self.address).await;
        let remove = async || self.patiently(remove).await;
        let removed = also_late(self.is_adding, remove).await?;
        if removed.is_some() {
            self.report.record(&format!("{} removed", self.plan.name));
        }
        if removed.is_some() || self.is_gone().await {
            let (name, address) = (&self.plan.name, &self.address);
            self.target.wait_gone(name, address, ENVOY_TIMEOUT).await;
        }
        Ok(())
    }

    /// Has another user just removed our entry? The proxies may still have it.
    async fn is_gone(&self) -> bool {
        self.created > 0 && matches!(self.target.find(&self.plan.name).await, Ok(None))
    }

    /// The same without waiting for running requests.
    pub(super) async fn drop_at_once(&mut self) -> Result<()> {
        if !self.is_undone {
            let remove = async || self.target.remove(&self.plan.name, &self.address).await;
            also_late(self.is_adding, remove).await?;
            let gone = self.target.wait_gone(&self.plan.name, &self.address, HURRY);
            let _ = timeout(HURRY, gone).await;
        }
        self.tunnel.abort().await;
        self.outlast(HANDOVER).await;
        self.target.clear(&self.plan, &self.address).await
    }
}

/// Removes an entry whose write may still take effect.
///
/// Retries for a while after the first response, however late that comes.
async fn also_late<T>(
    is_on_its_way: bool,
    remove: impl AsyncFn() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut until = None;
    loop {
        let removed = remove().await?;
        let until = *until.get_or_insert_with(|| Instant::now() + LATE);
        if removed.is_some() || !is_on_its_way || Instant::now() >= until {
            return Ok(removed);
        }
        sleep(LATE_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A removal with a slow first response, which finds an entry from the third attempt on.
    async fn removed(is_on_its_way: bool, first_answer: Duration) -> Option<u8> {
        let asked = Cell::new(0);
        let remove = async || {
            if asked.replace(asked.get() + 1) == 0 {
                sleep(first_answer).await;
            }
            Ok((asked.get() > 2).then_some(7))
        };
        let removed = also_late(is_on_its_way, remove).await;
        removed.expect("answered")
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_on_its_way_is_waited_for_also_after_a_first_answer_that_took_long() {
        for first_answer in [Duration::ZERO, Duration::from_secs(40)] {
            assert_eq!(removed(true, first_answer).await, Some(7));
            assert_eq!(removed(false, first_answer).await, None);
        }
    }
}

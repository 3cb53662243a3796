//! The Envoy cluster of an intercept that lives. Where somebody deleted it, the entry stays as it is and every request is answered in its place, which nothing else would show.

use std::time::Duration;

use intercept_core::Intercept;
use tokio::time::Instant;

use super::Session;

/// Between two looks at it: each is one more question to the API server, from every developer.
const EVERY: Duration = Duration::from_secs(30);

impl Session<'_> {
    /// Puts it back where it is gone, now and then. `entry` is ours, as it was just read.
    pub(super) async fn mend(&mut self, entry: &Intercept) {
        let now = Instant::now();
        if self.mending.next.is_some_and(|next| now < next) {
            return;
        }
        self.mending.next = Some(now + EVERY);
        let (name, replica) = (&self.plan.name, self.plan.place.replica);
        let is_told = match self.target.mend(name, entry, replica).await {
            Ok(is_mended) => {
                if is_mended {
                    let what = "its Envoy cluster was gone, and meanwhile the cluster answered; it is back";
                    self.report.note(what);
                }
                false
            }
            Err(failure) if failure.may_pass() || self.mending.is_told => {
                self.report.detail(failure.error());
                self.mending.is_told
            }
            Err(failure) => {
                self.report.warn(&format!(
                    "its Envoy cluster is gone and cannot be put back ({}); meanwhile the cluster answers",
                    failure.error()
                ));
                true
            }
        };
        self.mending.is_told = is_told;
    }
}

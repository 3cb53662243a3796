//! Entries that the filter leaves out or lets nobody match, by its own code: what an operator forbade after they were written among them. Pure.

use std::time::Duration;

use intercept_core::{Intercept, Limits, is_lease_too_long, validate};

use crate::words;

/// Why this entry takes no request at this moment, though its lease is not over; `None`: it does. `now` in seconds since the epoch.
pub fn reason(name: &str, entry: &Intercept, limits: &Limits, now: u64) -> Option<String> {
    let reason = match validate(name, entry, limits) {
        Err(invalid) => invalid.to_string(),
        Ok(()) => lease(entry.expires, limits, now)?,
    };
    Some(reason.trim_start_matches(['.', ':', ' ']).to_owned())
}

/// The same of its lease alone, as the rest of a path to the entry: the filter accepts the entry, and checks this with every match.
pub fn lease(expires: u64, limits: &Limits, now: u64) -> Option<String> {
    let longest = limits.max_lease_seconds;
    is_lease_too_long(expires, now, longest).then(|| {
        let [left, longest] =
            [expires.saturating_sub(now), longest].map(|time| words::span(Duration::from_secs(time)));
        format!(".expires: expected a lease of at most {longest} (limits.max_lease_seconds), found one with {left} left")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::istio::example;

    const NOW: u64 = 1_000_000;

    fn reason_of(expires: u64, change: impl FnOnce(&mut Limits)) -> Option<String> {
        let mut entry = example::entry();
        entry.expires = NOW + expires;
        let mut limits = Limits::default();
        change(&mut limits);
        reason(example::INTERCEPT, &entry, &limits, NOW)
    }

    #[test]
    fn what_the_operator_forbade_since_is_left_out() {
        let an_hour = |limits: &mut Limits| limits.max_lease_seconds = 3_600;
        // A minute is the tolerance of the filter.
        assert_eq!(reason_of(3_660, an_hour), None);
        assert_eq!(
            reason_of(8 * 3_600, an_hour).as_deref(),
            Some(
                "expires: expected a lease of at most 1 h (limits.max_lease_seconds), found one with 8 h left"
            )
        );
        let none = |limits: &mut Limits| limits.header_names = Some(Vec::new());
        let reason = reason_of(60, none).expect("forbidden");
        assert!(reason.starts_with("headers[0].name: "), "{reason}");
        assert!(reason.contains("(limits.header_names)"), "{reason}");
    }
}

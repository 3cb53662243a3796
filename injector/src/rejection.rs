//! Entries that the filter rejects or never matches, by the filter's own code: what an operator forbade after they were written among them, and what there is no room for.
//! Pure.

use std::time::Duration;

use intercept_core::{Config, Intercept, Limits, Matcher, is_lease_too_long};

use crate::describe;

/// Each entry that takes no request at this moment though its lease is not over, and why. `now` in seconds since the epoch, where it is known.
pub fn reasons(config: Config, now: Option<u64>) -> Vec<(String, String)> {
    let too_long = |(name, entry): &(String, Intercept)| {
        let reason = lease(entry.expires, &config.limits, now?)?;
        Some((name.clone(), format!("intercepts.{name}{reason}")))
    };
    let too_long: Vec<_> = config.intercepts.iter().filter_map(too_long).collect();
    let (_, refused) = Matcher::compile(config);
    let refused = refused.into_iter();
    let named = refused.filter_map(|rejected| Some((rejected.intercept?, rejected.reason)));
    named.chain(too_long).collect()
}

/// The filter accepts the entry, and checks this with every match.
fn lease(expires: u64, limits: &Limits, now: u64) -> Option<String> {
    let longest = limits.max_lease_seconds;
    is_lease_too_long(expires, now, longest).then(|| {
        let [left, longest] =
            [expires.saturating_sub(now), longest].map(|time| describe::span(Duration::from_secs(time)));
        format!(".expires: expected a lease of at most {longest} (limits.max_lease_seconds), found one with {left} left")
    })
}

#[cfg(test)]
mod tests {
    use intercept_manifest::istio::example;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn reason_of(expires: u64, change: impl FnOnce(&mut Limits)) -> Option<String> {
        let mut entry = example::entry();
        entry.expires = NOW + expires;
        let mut limits = Limits::default();
        change(&mut limits);
        let intercepts = vec![(example::INTERCEPT.to_owned(), entry)];
        let found = reasons(
            Config {
                limits,
                intercepts,
                hash: 0,
            },
            Some(NOW),
        );
        found.into_iter().next().map(|(_, reason)| reason)
    }

    #[test]
    fn what_the_operator_forbade_since_is_left_out() {
        let an_hour = |limits: &mut Limits| limits.max_lease_seconds = 3_600;
        // A minute is the tolerance of the filter.
        assert_eq!(reason_of(3_660, an_hour), None);
        assert_eq!(
            reason_of(8 * 3_600, an_hour).as_deref(),
            Some(
                "intercepts.orders-bob.expires: expected a lease of at most 1 h (limits.max_lease_seconds), found one with 8 h left"
            )
        );
        let none = |limits: &mut Limits| limits.header_names = Some(Vec::new());
        let reason = reason_of(60, none).expect("forbidden");
        assert!(
            reason.starts_with("intercepts.orders-bob.headers[0].name: "),
            "{reason}"
        );
        assert!(reason.contains("(limits.header_names)"), "{reason}");
    }
}

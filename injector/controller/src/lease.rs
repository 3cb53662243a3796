//! When an intercept's lease ends, by the controller's clock alone. Pure.

use std::collections::HashMap;

use intercept_manifest::istio::resource::Intercept;
use jiff::Timestamp;

/// A lease, as far as the controller has followed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its end, in seconds since the epoch.
    pub expires: u64,
    /// The `renewTime` from which that was counted.
    pub observed: Option<String>,
}

impl Lease {
    /// Is it over?
    pub fn is_over(&self, now: u64) -> bool {
        self.expires <= now
    }
}

/// Leases by the uid of their intercept: what the API server does not show yet.
#[derive(Debug, Default)]
pub struct Leases(HashMap<String, Lease>);

impl Leases {
    /// The lease of this intercept. It runs from the moment at which a change of `renewTime` is seen; what is known from before a restart is in the status.
    ///
    /// `longest`: how long the operator lets a lease be, in seconds.
    pub fn follow(&mut self, intercept: &Intercept, longest: u64, now: u64) -> Lease {
        let (uid, spec) = (intercept.uid(), &intercept.spec);
        let full = now.saturating_add(longest.min(spec.lease_seconds.into()));
        let known = self.0.get(uid).cloned().or_else(|| recorded(intercept));
        let lease = match known {
            // To take renewTime away is to give the lease back.
            _ if spec.renew_time.is_none() => Lease {
                expires: now,
                observed: None,
            },
            // What a clock that was ahead wrote lasts no longer than a lease given now.
            Some(known) if known.observed == spec.renew_time => Lease {
                expires: known.expires.min(full),
                ..known
            },
            _ => Lease {
                expires: full,
                observed: spec.renew_time.clone(),
            },
        };
        self.0.insert(uid.to_owned(), lease.clone());
        lease
    }

    /// Forgets all others.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_there(uid));
    }
}

fn recorded(intercept: &Intercept) -> Option<Lease> {
    Some(Lease {
        expires: intercept.recorded_expiry()?,
        observed: intercept.status.as_ref()?.observed_renew_time.clone(),
    })
}

/// Seconds since the epoch as RFC 3339.
pub fn timestamp(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

//! Leases by the controller's own clock. Pure.

use std::collections::HashMap;

use intercept_manifest::istio::resource::Intercept;
use jiff::Timestamp;

/// A lease as the controller has observed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The expiry, in seconds since the epoch.
    pub expires: u64,
    /// The `renewTime` from which the expiry was computed.
    pub observed: Option<String>,
}

impl Lease {
    /// Has the lease expired?
    pub fn is_over(&self, now: u64) -> bool {
        self.expires <= now
    }
}

/// Leases by the uid of their Intercept, for what the API server does not show yet.
#[derive(Debug, Default)]
pub struct Leases(HashMap<String, Lease>);

impl Leases {
    /// The lease of this Intercept.
    ///
    /// It starts when a change of `renewTime` is observed; after a restart the status has the earlier observation.
    ///
    /// `longest` is the operator's limit, in seconds.
    pub fn follow(&mut self, intercept: &Intercept, longest: u64, now: u64) -> Lease {
        let (uid, spec) = (intercept.uid(), &intercept.spec);
        let full = now.saturating_add(longest.min(spec.lease_seconds.into()));
        let known = self.0.get(uid).cloned().or_else(|| recorded(intercept));
        let lease = match known {
            // Removing renewTime gives the lease back.
            _ if spec.renew_time.is_none() => Lease {
                expires: now,
                observed: None,
            },
            // Written by a clock that was ahead: it lasts no longer than a lease that starts now.
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

    /// Forgets all other leases.
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

/// Formats seconds since the epoch as RFC 3339.
pub fn timestamp(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

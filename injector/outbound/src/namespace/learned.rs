//! The addresses that the cluster's resolver has named since the command started.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// More than any cluster names to one program; beyond it nothing new is learnt.
const MAX_ADDRESSES: usize = 65_536;

/// A growing set of addresses.
#[derive(Debug, Default)]
pub struct Learned(RwLock<HashSet<IpAddr>>);

impl Learned {
    /// Adds addresses. Those of this machine itself are never the cluster's, whatever a resolver says.
    pub fn add(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let is_remote = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for address in addresses.into_iter().filter(is_remote) {
            if known.len() < MAX_ADDRESSES {
                known.insert(address);
            }
        }
    }

    /// Has the resolver named it?
    pub fn contains(&self, address: IpAddr) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_not_learnt() {
        let learned = Learned::default();
        let addresses = ["10.96.0.5", "127.0.0.1", "::1", "0.0.0.0"].map(|a| a.parse().unwrap());
        learned.add(addresses);
        let known = addresses.map(|address| learned.contains(address));
        assert_eq!(known, [true, false, false, false]);
    }
}

//! The ports of the host's loopback at which the engine itself listens.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// A set of ports.
#[derive(Debug, Default)]
pub struct Published(RwLock<HashSet<u16>>);

impl Published {
    /// Adds a port.
    pub fn add(&self, port: u16) {
        self.ports().insert(port);
    }

    /// Removes a port.
    pub fn remove(&self, port: u16) {
        self.ports().remove(&port);
    }

    /// Does the engine listen there? What the namespace sends to it would come back into the namespace.
    pub fn contains(&self, port: u16) -> bool {
        let ports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ports.contains(&port)
    }

    fn ports(&self) -> std::sync::RwLockWriteGuard<'_, HashSet<u16>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

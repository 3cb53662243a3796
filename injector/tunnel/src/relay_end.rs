//! The relay as a session sees it.
//!
//! A name to show, and a connection to its control port, by TCP or port-forward.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::developer::{Connect, Connecting, Tcp};

/// One relay's control port. Cheap to clone.
#[derive(Clone)]
pub struct RelayEnd {
    name: String,
    hint: String,
    connect: Arc<dyn Connect>,
}

impl RelayEnd {
    /// A relay with the name to show, a hint for when it is unreachable, and a way to connect.
    pub fn new(
        name: impl Into<String>,
        hint: impl Into<String>,
        connect: impl Connect + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            hint: hint.into(),
            connect: Arc::new(connect),
        }
    }

    /// A relay reached over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::new(
            address.to_string(),
            "is the relay running? Without a cluster: injector sandbox",
            Tcp(address),
        )
    }

    /// What to do when the relay is unreachable.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl Connect for RelayEnd {
    fn connect(&self) -> Connecting<'_> {
        self.connect.connect()
    }
}

impl fmt::Display for RelayEnd {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for RelayEnd {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("RelayEnd").field(&self.name).finish()
    }
}

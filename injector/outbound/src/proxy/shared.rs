//! What the proxy's two protocols share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::route::Route;

/// The user that belongs to the password.
pub(super) const USER: &str = "injector";

/// How long a client may take to say what it wants.
pub(super) const GREETING: Duration = Duration::from_secs(30);

/// The first byte of SOCKS5 (RFC 1928). No method of HTTP begins with it.
pub(super) const SOCKS5: u8 = 5;

/// Lets a client in.
#[derive(Clone)]
pub(super) struct Password(pub(super) Arc<str>);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// What every connection needs.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) password: Password,
    pub(super) route: Arc<Route>,
}

//! Where a connection goes, and why there may be none: the same words at both ends.

use std::fmt;
use std::net::SocketAddr;

/// Where a program wants to connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A host name, resolved by the end that dials, and a port.
    Name(String, u16),
    /// An address.
    Address(SocketAddr),
}

impl fmt::Display for Destination {
    /// As the authority of a CONNECT request (RFC 9110, section 9.3.6).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
            Self::Address(address) => address.fmt(formatter),
        }
    }
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DialError {
    /// A reset answered the SYN.
    #[error("connection refused")]
    Refused,
    /// No route, or an ICMP error.
    #[error("host unreachable")]
    Unreachable,
    /// Nothing answered in time.
    #[error("connection timed out")]
    Timeout,
    /// Not allowed by the operator.
    #[error("not allowed by the cluster's operator")]
    Denied,
    /// No address belongs to the name.
    #[error("unknown host")]
    Unknown,
}

impl DialError {
    /// The value of the header `x-intercept-dial`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::Refused,
            Self::Unreachable,
            Self::Timeout,
            Self::Denied,
            Self::Unknown,
        ];
        all.into_iter().find(|error| error.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_their_own_inverse() {
        for word in ["refused", "unreachable", "timeout", "denied", "unknown"] {
            assert_eq!(DialError::parse(word).map(DialError::as_str), Some(word));
        }
        assert_eq!(DialError::parse("gone"), None);
    }

    #[test]
    fn destinations_are_authorities() {
        let address = "[fd00::1]:5432".parse().expect("an address");
        assert_eq!(Destination::Address(address).to_string(), "[fd00::1]:5432");
        let name = Destination::Name("postgres.shop".to_owned(), 5432);
        assert_eq!(name.to_string(), "postgres.shop:5432");
    }
}

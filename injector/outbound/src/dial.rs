//! Where a connection goes, and why there may be none: the same words at both ends.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Where a program wants to connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A host name, resolved by the end that dials, and a port.
    Name(String, u16),
    /// An address.
    Address(SocketAddr),
}

impl Destination {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Name(_, port) => *port,
            Self::Address(address) => address.port(),
        }
    }
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

/// A text that names no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}: expected HOST:PORT")]
pub struct InvalidDestination {
    text: String,
}

impl FromStr for Destination {
    type Err = InvalidDestination;

    /// The inverse of [`fmt::Display`]. A name loses its capitals: DNS compares without them (RFC 4343).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDestination {
            text: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port > 0);
        let port: u16 = port.ok_or_else(invalid)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(host).parse::<IpAddr>() {
            let is_bracketed = bare.is_some();
            return match ip.is_ipv6() == is_bracketed {
                true => Ok(Self::Address(SocketAddr::new(ip, port))),
                false => Err(invalid()),
            };
        }
        match is_host_name(host) {
            true => Ok(Self::Name(host.to_ascii_lowercase(), port)),
            false => Err(invalid()),
        }
    }
}

/// Whether DNS can carry it (RFC 1035, section 2.3.4). Underscores are no host name's, and in use.
pub(crate) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        (1..=63).contains(&label.len())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    labels.len() <= 253 && labels.split('.').all(is_label)
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

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable,
        }
    }
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

    #[test]
    fn authorities_are_read_back() {
        for text in [
            "[fd00::1]:5432",
            "10.0.0.1:80",
            "postgres.shop:5432",
            "a_b.c.:1",
        ] {
            let read: Destination = text.parse().expect(text);
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(
            "Redis:6379".parse(),
            Ok(Destination::Name("redis".to_owned(), 6379))
        );
        for text in [
            "redis",
            "redis:0",
            "redis:65536",
            ":80",
            "a b:80",
            "fd00::1:80",
            "[10.0.0.1]:80",
            "a..b:80",
            "x@y:80",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}

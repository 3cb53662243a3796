//! The addresses that the namespace has for itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// Its IPv4 address, of a range that is never routed (RFC 2544).
///
/// Not of 127.0.0.0/8: glibc's `AI_ADDRCONFIG` then takes the system for one without IPv4.
pub const IPV4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Its IPv6 address, a unique local one (RFC 4193): programs prefer IPv4 to it for addresses outside.
pub const IPV6: Ipv6Addr = Ipv6Addr::new(0xfdb6, 0x1f0a, 0x5e27, 0, 0, 0, 0, 1);

/// Where the namespace's resolver listens, which its `resolv.conf` names.
pub const RESOLVER: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), DNS_PORT));

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// The mark of the engine's own connections into the namespace.
pub const OWN_MARK: u32 = 9;

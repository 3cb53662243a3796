//! Ranges of addresses.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whether an address is in the range, or the IPv4 address that it maps is.
pub(super) fn contains(range: &IpNet, ip: IpAddr) -> bool {
    range.contains(&ip) || range.contains(&ip.to_canonical())
}

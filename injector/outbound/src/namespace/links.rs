//! The namespace's only interface: `lo` up, with addresses, and every address local to it.
//!
//! A route `local default dev lo` makes each destination an address of the namespace itself, so that a listener's `getsockname` is the destination that a program dialled.

use super::address::{IPV4, IPV6};
use super::netlink::{ACK, Attributes, CREATE, EXCLUSIVE, Netlink, Refusal, message};

// linux/rtnetlink.h
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
const OUTGOING_INTERFACE: u16 = 4;
const PREFERRED_SOURCE: u16 = 7;
const TABLE_MAIN: u8 = 254;
const SCOPE_HOST: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const ROUTE_LOCAL: u8 = 2;
/// No duplicate address detection: the address is usable at once.
const NO_DAD: u32 = 2;

const IPV4_FAMILY: u8 = 2;
const IPV6_FAMILY: u8 = 10;
/// `lo` is the first interface of every namespace.
const LOOPBACK_INDEX: u32 = 1;
const INTERFACE_UP: u32 = 1;

/// Sets up `lo`. `has_ipv6` is false where the kernel has none.
pub fn set_up(has_ipv6: bool) -> Result<(), Refusal> {
    let netlink = Netlink::open(None)?;
    netlink.request(&link_up(), 1)?;
    add(&netlink, IPV4_FAMILY, &IPV4.octets())?;
    match has_ipv6 {
        true => add(&netlink, IPV6_FAMILY, &IPV6.octets()),
        false => Ok(()),
    }
}

fn add(netlink: &Netlink, family: u8, address: &[u8]) -> Result<(), Refusal> {
    netlink.request(&new_address(family, address), 1)?;
    netlink.request(&default_route(family, address), 1)
}

fn link_up() -> Vec<u8> {
    let mut header = vec![0; 4];
    for number in [LOOPBACK_INDEX, INTERFACE_UP, INTERFACE_UP] {
        header.extend(number.to_ne_bytes());
    }
    message(NEW_LINK, ACK, 1, &header, &Attributes::new())
}

fn new_address(family: u8, address: &[u8]) -> Vec<u8> {
    let mut header = vec![family, prefix_length(address), 0, 0];
    header.extend(LOOPBACK_INDEX.to_ne_bytes());
    let attributes = Attributes::new()
        .bytes(LOCAL, address)
        .bytes(ADDRESS, address)
        .bytes(ADDRESS_FLAGS, &NO_DAD.to_ne_bytes());
    message(
        NEW_ADDRESS,
        ACK | CREATE | EXCLUSIVE,
        2,
        &header,
        &attributes,
    )
}

fn default_route(family: u8, source: &[u8]) -> Vec<u8> {
    // IPv6 has no scopes of routes.
    let scope = if family == IPV4_FAMILY { SCOPE_HOST } else { 0 };
    let numbers = [TABLE_MAIN, PROTOCOL_STATIC, scope, ROUTE_LOCAL];
    let mut header = vec![family, 0, 0, 0];
    header.extend(numbers);
    header.extend(0_u32.to_ne_bytes());
    let attributes = Attributes::new()
        .bytes(OUTGOING_INTERFACE, &LOOPBACK_INDEX.to_ne_bytes())
        .bytes(PREFERRED_SOURCE, source);
    message(NEW_ROUTE, ACK | CREATE | EXCLUSIVE, 3, &header, &attributes)
}

fn prefix_length(address: &[u8]) -> u8 {
    u8::try_from(address.len() * 8).unwrap_or(u8::MAX)
}

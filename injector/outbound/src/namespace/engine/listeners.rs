//! Which ports programs listen at in the namespace, as /proc says.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::namespace::address::{IPV4, IPV6};

/// The state LISTEN in /proc/net/tcp (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// The ports at which something listens in the network namespace of a process, and is reached by its loopback.
pub async fn listeners(process: u32) -> io::Result<BTreeSet<u16>> {
    let read = |file| tokio::fs::read_to_string(format!("/proc/{process}/net/{file}"));
    let ipv4 = read("tcp").await?;
    // It is not there where the kernel has no IPv6.
    let ipv6 = read("tcp6").await.unwrap_or_default();
    Ok(ports(&ipv4).chain(ports(&ipv6)).collect())
}

fn ports(table: &str) -> impl Iterator<Item = u16> {
    table.lines().skip(1).filter_map(port)
}

/// The port of a line of the table.
fn port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    words.nth(1).filter(|state| *state == LISTEN)?;
    is_reachable(parse(address)?).then_some(u16::from_str_radix(port, 16).ok()?)
}

/// Numbers of 32 bits in the machine's byte order, whose bytes are the address.
fn parse(address: &str) -> Option<IpAddr> {
    let number = |at| {
        let word = address.get(at..at + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    match address.len() {
        8 => Some(Ipv4Addr::from(number(0)?).into()),
        32 => {
            let bytes = [number(0)?, number(8)?, number(16)?, number(24)?];
            Some(Ipv6Addr::from(*bytes.as_flattened().first_chunk::<16>()?).into())
        }
        _ => None,
    }
}

fn is_reachable(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified()
        || [Ipv4Addr::LOCALHOST, IPV4]
            .map(IpAddr::from)
            .contains(&address)
        || [Ipv6Addr::LOCALHOST, IPV6]
            .map(IpAddr::from)
            .contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_on_loopback_are_ports() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000\n\
             1: 00000000:0050 00000000:0000 0A 00000000:00000000\n\
             2: 0100007F:0BB9 0100007F:1000 01 00000000:00000000\n\
             3: 3500007F:0035 00000000:0000 0A 00000000:00000000\n\
             4: 00000000000000000000000001000000:23F1 00000000000000000000000000000000:0000 0A\n\
             5: 0000000000000000FFFF00000100007F:23F2 00000000000000000000000000000000:0000 0A\n\
             6: 00000000000000000000000000000000:23F3 00000000000000000000000000000000:0000 0A\n\
             7: nonsense\n";
        let found: Vec<_> = ports(table).collect();
        assert_eq!(found, [3000, 80, 9201, 9202, 9203]);
    }
}

//! The queue in which SYNs wait: its socket, the packets read from it, and the verdicts written to it.
//!
//! Source of all numbers: linux/netfilter/nfnetlink_queue.h, linux/netfilter.h.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::NETFILTER;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::netlink::{ACK, Attributes, Netlink, Refusal, attributes_of, message, messages_of};
use super::verdict::Verdict;

const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIGURATION: u16 = SUBSYSTEM | 2;
/// struct nfgenmsg: any family, version 0, queue 0.
const HEADER: [u8; 4] = [0; 4];

/// As much of a packet as its addresses and ports need, options of IPv4 included.
const COPIED: u32 = 128;
/// More SYNs than this at once are lost, and sent again by their programs' kernel.
const LENGTH: u32 = 8192;
/// Room for 1 000 SYNs that arrive at once; the kernel gives at most net.core.rmem_max.
const RECEIVE_BUFFER: usize = 4 << 20;

const NF_DROP: u32 = 0;
const NF_REPEAT: u32 = 4;

const TCP: u8 = 6;
const IPV6_HEADER: usize = 40;

/// Opens queue 0 of the namespace of this process.
pub fn open() -> Result<OwnedFd, Refusal> {
    let netlink = Netlink::open(Some(NETFILTER))?;
    set_socket_recv_buffer_size(&netlink, RECEIVE_BUFFER)?;
    // Command 1 is "bind".
    let bind = Attributes::new().bytes(1, &[1, 0, 0, 0]);
    netlink.request(&message(CONFIGURATION, ACK, 1, &HEADER, &bind), 1)?;
    // Mode 2 copies the packet.
    let parameters: Vec<u8> = COPIED.to_be_bytes().into_iter().chain([2]).collect();
    let size = Attributes::new().bytes(2, &parameters).number(3, LENGTH);
    netlink.request(&message(CONFIGURATION, ACK, 2, &HEADER, &size), 1)?;
    Ok(netlink.into())
}

/// The two ends of a connection: who connects, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The program's end.
    pub source: SocketAddr,
    /// Where it wants to connect.
    pub destination: SocketAddr,
}

/// A held packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// What a verdict names it by.
    pub id: u32,
    /// `None` where it is no TCP packet that can be read.
    pub ends: Option<Ends>,
}

/// The packets of a received datagram.
pub fn packets(bytes: &[u8]) -> Vec<Packet> {
    messages_of(bytes)
        .filter(|message| message.kind == PACKET)
        .filter_map(|message| packet(message.body.get(HEADER.len()..)?))
        .collect()
}

fn packet(attributes: &[u8]) -> Option<Packet> {
    let of = |wanted| attributes_of(attributes).find(|(kind, _)| *kind == wanted);
    let id = of(1)?.1.first_chunk().copied().map(u32::from_be_bytes)?;
    let ends = of(10).and_then(|(_, packet)| ends(packet));
    Some(Packet { id, ends })
}

fn ends(packet: &[u8]) -> Option<Ends> {
    let (header, source, destination) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == TCP => {
            let header = usize::from(packet.first()? & 15) * 4;
            (header, ipv4(packet, 12)?, ipv4(packet, 16)?)
        }
        6 if *packet.get(6)? == TCP => (IPV6_HEADER, ipv6(packet, 8)?, ipv6(packet, 24)?),
        _ => return None,
    };
    Some(Ends {
        source: SocketAddr::new(source, port(packet, header)?),
        destination: SocketAddr::new(destination, port(packet, header + 2)?),
    })
}

fn ipv4(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?))
}

fn ipv6(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?))
}

fn port(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

/// The message that says what becomes of the packet `id`.
pub fn verdict_message(id: u32, verdict: Verdict) -> Vec<u8> {
    // Not "accept": the rules must see the packet again, to answer or to capture it.
    let (action, mark) = match verdict {
        Verdict::Repeat(mark) => (NF_REPEAT, mark.number()),
        Verdict::Drop => (NF_DROP, 0),
    };
    let header: Vec<u8> = [action, id]
        .into_iter()
        .flat_map(u32::to_be_bytes)
        .collect();
    let attributes = Attributes::new().bytes(2, &header).number(3, mark);
    message(VERDICT, 0, 0, &HEADER, &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(packet: &[u8]) -> Vec<Packet> {
        let attributes = Attributes::new()
            .bytes(1, &[0, 0, 0, 7, 8, 0, 0])
            .bytes(10, packet);
        packets(&message(PACKET, 0, 0, &HEADER, &attributes))
    }

    fn ends_of(source: &str, destination: &str) -> Option<Ends> {
        let source = source.parse().ok()?;
        let destination = destination.parse().ok()?;
        Some(Ends {
            source,
            destination,
        })
    }

    #[test]
    fn ends_behind_ipv4_options() {
        let mut packet = vec![0; 28];
        packet[0] = 0x46;
        packet[9] = TCP;
        packet[12..20].copy_from_slice(&[198, 18, 0, 1, 10, 96, 0, 5]);
        packet[24..28].copy_from_slice(&[0xc0, 0, 0x15, 0x38]);
        let ends = ends_of("198.18.0.1:49152", "10.96.0.5:5432");
        assert_eq!(queued(&packet), [Packet { id: 7, ends }]);
    }

    #[test]
    fn ends_of_ipv6() {
        let mut packet = vec![0; 44];
        packet[0] = 0x60;
        packet[6] = TCP;
        packet[23] = 1;
        packet[24..26].copy_from_slice(&[0xfd, 0]);
        packet[40..44].copy_from_slice(&[0xc0, 0, 0, 80]);
        let ends = ends_of("[::1]:49152", "[fd00::]:80");
        assert_eq!(queued(&packet), [Packet { id: 7, ends }]);
    }

    #[test]
    fn other_packets_have_no_ends() {
        let none = [Packet { id: 7, ends: None }];
        for packet in [&[][..], &[0x45; 12], &[0x60; 40], &[0x10; 60]] {
            assert_eq!(queued(packet), none, "{packet:?}");
        }
    }
}

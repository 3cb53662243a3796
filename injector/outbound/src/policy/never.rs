//! Addresses that are never dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Metadata services of clouds outside of the link-local range: EC2 by IPv6, Azure, Alibaba.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Why an address is never dialled; `None` where it may be.
pub(super) fn kind(ip: IpAddr) -> Option<&'static str> {
    let kind = match ip {
        IpAddr::V4(ip) => of_v4(ip),
        IpAddr::V6(ip) => embedded(ip).and_then(of_v4).or_else(|| of_v6(ip)),
    };
    let is_metadata = || METADATA.contains(&ip.to_canonical());
    kind.or_else(|| is_metadata().then_some("a cloud's metadata service"))
        .or_else(|| is_own(ip).then_some("an address of the outbound relay itself"))
}

fn of_v4(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        [127, ..] => Some("loopback"),
        [0, ..] => Some("unspecified"),
        [169, 254, ..] => Some("link-local"),
        [224..=239, ..] => Some("multicast"),
        [255, 255, 255, 255] => Some("broadcast"),
        [240..=255, ..] => Some("reserved"),
        _ if METADATA.contains(&IpAddr::V4(ip)) => Some("a cloud's metadata service"),
        _ => None,
    }
}

fn of_v6(ip: Ipv6Addr) -> Option<&'static str> {
    match ip.segments() {
        _ if ip.is_loopback() => Some("loopback"),
        _ if ip.is_unspecified() => Some("unspecified"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("link-local"),
        // Deprecated, RFC 3879.
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("site-local"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("multicast"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (RFC 4291, 2.5.5.2), compatible (2.5.5.1), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] => v4(g, h),
        // Translated, RFC 2765.
        [0, 0, 0, 0, 0xffff, 0] => v4(g, h),
        [0, 0, 0, 0, 0, 0] if !ip.is_loopback() && !ip.is_unspecified() => v4(g, h),
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// The kernel answers an address of its own from that same address. Nothing is sent.
fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_kind(text: &str, expected: Option<&str>) {
        assert_eq!(kind(text.parse().expect(text)), expected, "{text}");
    }

    #[test]
    fn each_kind_is_never_dialled() {
        let all = [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("168.63.129.16", "a cloud's metadata service"),
            ("100.100.100.200", "a cloud's metadata service"),
            ("fd00:ec2::254", "a cloud's metadata service"),
            ("::1", "loopback"),
            ("::", "unspecified"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ];
        for (text, expected) in all {
            assert_kind(text, Some(expected));
        }
    }

    #[test]
    fn no_form_hides_an_ipv4_address() {
        let all = [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::",
        ];
        for text in all {
            assert_kind(text, Some("loopback"));
        }
        for text in ["::ffff:169.254.169.254", "2002:a9fe:a9fe::1"] {
            assert_kind(text, Some("link-local"));
        }
        assert_kind("::ffff:168.63.129.16", Some("a cloud's metadata service"));
    }

    #[test]
    fn other_addresses_may_be_dialled() {
        for text in [
            "192.0.2.1",
            "10.96.0.1",
            "fd00:96::1",
            "2001:db8::1",
            "64:ff9b::192.0.2.1",
        ] {
            assert_kind(text, None);
        }
    }

    #[test]
    fn own_addresses_are_recognized() {
        assert!(is_own("127.0.0.1".parse().expect("an address")));
        assert!(!is_own("192.0.2.1".parse().expect("an address")));
    }
}

//! Identifies the caller of a data port, and decides whether a tunnel accepts its requests.
//!
//! Owns the reason to trust [`PEER`]; knows nothing of what happens to the request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{HeaderMap, HeaderName};

use super::registry::Tunnel;
use crate::headers;

/// The identity of the caller's certificate.
///
/// The relay's sidecar overwrites any value that a client sent
/// (see the relay's EnvoyFilter, `manifest::istio::install::mesh_rules`).
const PEER: HeaderName = HeaderName::from_static("x-intercept-peer");

/// Source addresses of Istio's sidecar for connections to its own application.
///
/// istiod's `InboundPassthroughBindIpv4` and `…Ipv6`.
///
/// Istio's iptables rules rely on them, too. A port-forward ends at the same port, past the sidecar, from 127.0.0.1 or ::1.
const SIDECAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
];

/// The other end of a data connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(IpAddr);

/// The caller's identity according to the relay's sidecar.
///
/// `None` if it states none, or the caller bypassed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer(Option<String>);

impl Caller {
    /// The caller at this address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// Takes the caller's identity off a request that came through the relay's sidecar.
    ///
    /// Without a sidecar, removes nothing.
    pub(super) fn identify(self, request: &mut HeaderMap) -> Peer {
        if !SIDECAR.contains(&self.0) {
            return Peer(None);
        }
        let peer = request.remove(PEER);
        let peer = peer.and_then(|peer| Some(peer.to_str().ok()?.to_owned()));
        if let Some(peer) = &peer {
            headers::cut_own_hop(request, peer);
        }
        Peer(peer)
    }
}

impl Peer {
    /// May this caller use the tunnel?
    ///
    /// A tunnel without an identity (outside of a mesh) accepts every caller, any other only its own identity.
    pub(super) fn may_use(&self, tunnel: &Tunnel) -> bool {
        tunnel.identity.is_none() || tunnel.identity == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(source: &str, lines: &[(&'static str, &str)]) -> (Option<String>, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = Caller::at(source.parse().unwrap()).identify(&mut headers);
        (peer.0, headers)
    }

    #[test]
    fn only_the_sidecar_names_the_peer() {
        let peer = ("x-intercept-peer", "spiffe://a");
        let hops = ("x-forwarded-client-cert", "URI=b,URI=spiffe://a");
        let (named, headers) = identify("127.0.0.6", &[peer, hops]);
        assert_eq!(named.as_deref(), Some("spiffe://a"));
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["x-forwarded-client-cert"], "URI=b");
        let (named, headers) = identify("127.0.0.1", &[peer, hops]);
        assert_eq!((named, headers.len()), (None, 2));
        assert_eq!(headers["x-forwarded-client-cert"], hops.1);
        let (named, headers) = identify("127.0.0.6", &[hops]);
        assert_eq!((named, headers.len()), (None, 1));
    }

    #[test]
    fn sidecar_is_known_by_two_addresses() {
        for (address, expected) in [
            ("127.0.0.6", true),
            ("::6", true),
            ("::ffff:127.0.0.6", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("10.0.0.6", false),
        ] {
            let caller = Caller::at(address.parse().unwrap());
            assert_eq!(SIDECAR.contains(&caller.0), expected, "{address}");
        }
    }
}

//! Who sends a request to a data port, and whether a tunnel takes it from them. Owns the reason to believe what `x-forwarded-client-cert` says;
//! knows nothing of what is done with the request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;

use super::registry::Tunnel;
use crate::tunnel::headers;

/// Where Istio's sidecar comes from when it hands a connection to its own application: `InboundPassthroughBindIpv4` and `…Ipv6` of istiod, which its
/// iptables rules rely on too. A port-forward ends at the same port, past the sidecar, from 127.0.0.1 or ::1.
const SIDECAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
];

/// The other end of a data connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(IpAddr);

impl Caller {
    /// The one at this address; an IPv4 address that an IPv6 socket saw is the IPv4 address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// A tunnel opened for no identity (outside of a mesh) takes everybody's requests. Any other takes those of its identity, as the *sidecar* states it:
    /// whoever comes past the sidecar can write what they like into the header.
    pub(super) fn may_use(self, tunnel: &Tunnel, request: &HeaderMap) -> bool {
        let Some(identity) = &tunnel.identity else {
            return true;
        };
        SIDECAR.contains(&self.0) && headers::caller_identities(request).contains(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_is_known_by_either_address_and_by_no_other_of_the_loopback() {
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

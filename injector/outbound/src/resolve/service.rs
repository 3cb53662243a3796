//! Services that exist for outbound connections only: a name and an address that nothing else has, and what is dialled in their place. The sandbox's cluster is made of these.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use ipnet::Ipv4Net;

use super::message::reply;

/// The range of their addresses: TEST-NET-1 (RFC 5737), which no network has.
pub const RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24);

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its short name, in lower case.
    pub name: String,
    /// The port under which it is dialled.
    pub port: u16,
    /// What is dialled instead, loopback too.
    pub target: SocketAddr,
}

/// All services, with their addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    all: Vec<(IpAddr, Service)>,
    domains: Vec<String>,
}

impl Services {
    /// `domains`: under which they have full names.
    pub(crate) fn new(services: Vec<Service>, domains: &[String]) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut all = Vec::new();
        for service in services {
            let known = names.iter().position(|name| *name == service.name);
            let number = known.unwrap_or(names.len());
            if known.is_none() {
                names.push(service.name.clone());
            }
            let last = u32::try_from(number + 1).unwrap_or(u32::MAX);
            let ip = u32::from(RANGE.addr()).saturating_add(last.min(254));
            all.push((IpAddr::V4(ip.into()), service));
        }
        Self {
            all,
            domains: domains.to_vec(),
        }
    }

    /// The addresses of a name, short or full; `None` where it is none of theirs.
    pub(crate) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.trim_end_matches('.');
        let is_name = |service: &Service| {
            let rest = name.strip_prefix(service.name.as_str());
            rest.is_some_and(|rest| match rest.strip_prefix('.') {
                Some(domain) => self.domains.iter().any(|known| known == domain),
                None => rest.is_empty(),
            })
        };
        let found = self.all.iter().find(|(_, service)| is_name(service))?;
        Some(vec![found.0])
    }

    /// What is dialled for this address; `None` where it is none of theirs.
    pub(crate) fn target(&self, address: SocketAddr) -> Option<SocketAddr> {
        let mut all = self.all.iter();
        let found = all.find(|(ip, service)| *ip == address.ip() && service.port == address.port());
        found.map(|(_, service)| service.target)
    }

    /// The answer to a DNS message about one of them.
    pub(crate) fn answer(&self, message: &[u8], name: &str) -> Option<Bytes> {
        reply(message, &self.addresses(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_names_and_one_address() {
        let service = |name: &str, port| Service {
            name: name.to_owned(),
            port,
            target: ([127, 0, 0, 1], 4000 + port).into(),
        };
        let all = vec![service("a", 80), service("b", 80), service("a", 81)];
        let services = Services::new(all, &["sandbox".to_owned()]);
        let first = Some(vec!["192.0.2.1".parse().expect("an address")]);
        for name in ["a", "a.", "a.sandbox", "a.sandbox."] {
            assert_eq!(services.addresses(name), first, "{name}");
        }
        for name in ["ab", "asandbox", "a.other", "c", ""] {
            assert_eq!(services.addresses(name), None, "{name}");
        }
        let target = |text: &str| {
            services
                .target(text.parse().expect(text))
                .map(|target| target.port())
        };
        assert_eq!(target("192.0.2.1:80"), Some(4080));
        assert_eq!(target("192.0.2.1:81"), Some(4081));
        assert_eq!(target("192.0.2.2:80"), Some(4080));
        assert_eq!(target("192.0.2.2:81"), None);
    }
}

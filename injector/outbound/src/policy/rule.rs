//! One rule: a range of addresses, a name, or all names of a domain, and perhaps a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::range::contains;
use crate::dial::is_host_name;
use crate::resolve::Resolver;

/// A range of addresses, a name or a domain, and perhaps a port: `10.0.0.0/8:5432`, `[fd00::]/8:5432`, `postgres.shop:5432`, `*.shop.svc.cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    host: Host,
    port: Option<u16>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Range(IpNet),
    /// The addresses that it has at that moment.
    Name(String),
    /// The addresses that any name in it has at that moment, as far as names were asked for. With the dot before it.
    Domain(String),
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text}: expected an address, a range (10.0.0.0/8), a name or a domain (*.shop.svc.cluster.local), and perhaps :PORT"
)]
pub struct InvalidRule {
    text: String,
}

impl Rule {
    /// Whether it covers this address. `name`: what was resolved to it.
    pub(super) async fn matches(
        &self,
        address: SocketAddr,
        name: Option<&str>,
        resolver: &Arc<Resolver>,
    ) -> bool {
        if self.port.is_some_and(|port| port != address.port()) {
            return false;
        }
        let ip = address.ip();
        match &self.host {
            Host::Range(range) => contains(range, ip),
            Host::Name(name) => resolver.has_address(name, ip).await,
            Host::Domain(domain) => {
                let is_in = |name: &str| name.trim_end_matches('.').ends_with(domain.as_str());
                // It was resolved a moment ago.
                if name.is_some_and(is_in) {
                    return true;
                }
                for name in resolver.names_of(ip) {
                    if is_in(&name) && resolver.has_address(&name, ip).await {
                        return true;
                    }
                }
                false
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRule {
            text: text.to_owned(),
        };
        let (host, port) = match parse_host(text) {
            Some(host) => (host, None),
            None => {
                let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
                let port = port.parse().ok().filter(|port| *port > 0);
                (
                    parse_host(host).ok_or_else(invalid)?,
                    Some(port.ok_or_else(invalid)?),
                )
            }
        };
        Ok(Self {
            host,
            port,
            text: text.to_owned(),
        })
    }
}

fn parse_host(text: &str) -> Option<Host> {
    if let Some(domain) = text.strip_prefix('*') {
        let is_domain = domain.strip_prefix('.').is_some_and(is_host_name);
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        return is_domain.then_some(Host::Domain(domain));
    }
    if let Some(range) = parse_range(text) {
        return Some(Host::Range(range));
    }
    // What looks like an address is one with an error in it.
    let is_number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    (is_host_name(text) && !is_number(text)).then(|| Host::Name(text.to_ascii_lowercase()))
}

/// `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`, `[fd00::1]`, `[fd00::]/8`.
fn parse_range(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(address).parse().ok()?;
    // An IPv6 address that ends in `:5432` would be read as a longer address.
    let is_clear = bare.is_none() || ip.is_ipv6();
    match length {
        _ if !is_clear => None,
        None => Some(IpNet::from(ip)),
        Some(length) => IpNet::new(ip, length).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> (Host, Option<u16>) {
        let rule: Rule = text.parse().expect(text);
        assert_eq!(rule.to_string(), text);
        (rule.host, rule.port)
    }

    #[test]
    fn rules_are_read() {
        let range = |text: &str| Host::Range(text.parse().expect(text));
        let all = [
            ("10.0.0.0/8", range("10.0.0.0/8"), None),
            ("10.0.0.0/8:5432", range("10.0.0.0/8"), Some(5432)),
            ("10.0.0.1", range("10.0.0.1/32"), None),
            ("10.0.0.1:80", range("10.0.0.1/32"), Some(80)),
            ("fd00::/8", range("fd00::/8"), None),
            ("[fd00::]/8:443", range("fd00::/8"), Some(443)),
            ("[fd00::1]:443", range("fd00::1/128"), Some(443)),
            (
                "Postgres.shop",
                Host::Name("postgres.shop".to_owned()),
                None,
            ),
            (
                "postgres:5432",
                Host::Name("postgres".to_owned()),
                Some(5432),
            ),
            ("*.shop.svc", Host::Domain(".shop.svc".to_owned()), None),
            (
                "*.shop.svc:80",
                Host::Domain(".shop.svc".to_owned()),
                Some(80),
            ),
        ];
        for (text, host, port) in all {
            assert_eq!(rule(text), (host, port), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_rules() {
        let all = [
            "",
            "*",
            "*.",
            "*shop",
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.1:0",
            "a:b",
            "a b",
            "x:65536",
            "[10.0.0.1]:80",
            "http://a",
            "a*b",
        ];
        for text in all {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}

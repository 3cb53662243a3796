//! `/etc/resolv.conf`, as far as it is used here: resolv.conf(5).

use std::net::{IpAddr, SocketAddr};

/// Which resolvers to ask, and for which names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Resolvers, in their order.
    pub servers: Vec<SocketAddr>,
    /// What is appended to short names, without dots at the ends.
    pub search: Vec<String>,
    /// Names with fewer dots are looked up in the search list first.
    pub ndots: usize,
}

impl ResolvConf {
    /// Reads the text of such a file. What is not understood is passed over, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self {
            ndots: 1,
            ..Self::default()
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    conf.servers
                        .extend(server.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => {
                    let names = words.map(|name| name.trim_matches('.').to_ascii_lowercase());
                    conf.search = names.filter(|name| !name.is_empty()).collect();
                }
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:"));
                    let ndots = ndots.filter_map(|count| count.parse::<usize>().ok());
                    let ndots = ndots.fold(None, |_, last| Some(last));
                    conf.ndots = ndots.unwrap_or(conf.ndots).min(15);
                }
                _ => {}
            }
        }
        conf
    }

    /// The cluster's domain, as Kubernetes writes it into the search list.
    pub fn cluster_domain(&self) -> Option<&str> {
        self.search
            .iter()
            .find_map(|name| name.strip_prefix("svc."))
    }

    /// The full names that a name may stand for, in the order in which they are asked.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if self.servers.is_empty() {
            return Vec::new();
        }
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let bare = [name.to_owned()];
        match dots >= self.ndots {
            true => bare.into_iter().chain(searched).collect(),
            false => searched.chain(bare).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5\n";

    #[test]
    fn a_pods_file_is_read() {
        let conf = ResolvConf::parse(POD);
        let servers = ["10.96.0.10:53", "[fd00::10]:53"].map(|text| text.parse().expect(text));
        assert_eq!(conf.servers, servers);
        assert_eq!(
            (conf.ndots, conf.cluster_domain()),
            (5, Some("cluster.local"))
        );
        assert_eq!(
            conf.candidates("redis")[..2],
            ["redis.shop.svc.cluster.local", "redis.svc.cluster.local"]
        );
        assert_eq!(conf.candidates("redis.shop.").as_slice(), ["redis.shop"]);
        assert_eq!(
            conf.candidates("a.b.c.d.e.f").first().map(String::as_str),
            Some("a.b.c.d.e.f")
        );
    }

    #[test]
    fn lines_that_say_nothing_are_passed_over() {
        let conf =
            ResolvConf::parse("# nameserver 1.2.3.4\nnameserver x\nsortlist\noptions ndots:x\n");
        assert_eq!(
            conf,
            ResolvConf {
                ndots: 1,
                ..ResolvConf::default()
            }
        );
    }
}

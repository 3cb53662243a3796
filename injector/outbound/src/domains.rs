//! Which names are the cluster's.

use crate::config::ClusterConfig;

/// The names of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domains {
    /// The domain of the cluster, such as `cluster.local`.
    pub cluster: String,
    /// What a pod's `resolv.conf` searches, in its order.
    pub search: Vec<String>,
    /// Names with fewer dots are looked up in the search list first.
    pub ndots: usize,
}

impl From<&ClusterConfig> for Domains {
    fn from(config: &ClusterConfig) -> Self {
        let search = config.search.iter();
        Self {
            cluster: config.domain.to_lowercase(),
            search: search.map(|name| name.to_lowercase()).collect(),
            ndots: config.ndots,
        }
    }
}

impl Domains {
    /// Is this a name of the cluster? `name` is lower-case and has no final dot.
    pub fn contains(&self, name: &str) -> bool {
        let is_below = |domain: &str| {
            let domain = domain.trim_end_matches('.');
            let rest = name.strip_suffix(domain);
            !domain.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        // `postgres.shop.svc` without the cluster's domain is a name of the cluster, too.
        is_below(&self.cluster) || is_below("svc") || self.search.iter().any(|d| is_below(d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_domains() {
        let domains = Domains {
            cluster: "cluster.local".to_owned(),
            search: vec![
                "shop.svc.cluster.local".to_owned(),
                "Corp.example.".to_lowercase(),
                String::new(),
            ],
            ndots: 5,
        };
        for name in [
            "cluster.local",
            "a.cluster.local",
            "redis.shop.svc",
            "x.corp.example",
        ] {
            assert!(domains.contains(name), "{name}");
        }
        for name in ["", "redis", "mycluster.local", "example.org", "svc.example"] {
            assert!(!domains.contains(name), "{name}");
        }
    }
}

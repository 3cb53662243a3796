//! Variables of a command that proxies are found by.

use intercept_outbound::{ClusterConfig, Proxy};

/// Each also in lower case, which some programs read alone.
const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

const EXCEPTIONS: &str = "NO_PROXY";

/// This machine itself, which a program reaches without a proxy.
const THIS_MACHINE: &str = "localhost,127.0.0.1,::1";

/// A name and a value.
pub type Variable = (String, String);

/// The first variable by which a command would find a proxy of the developer's. `read`: the command's own environment.
pub fn own_proxy(read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut names = PROXIES.into_iter().flat_map(both);
    names.find(|name| read(name).is_some_and(|value| !value.is_empty()))
}

/// Those that lead to this proxy.
pub fn of_proxy(proxy: &Proxy) -> Vec<Variable> {
    let (http, socks) = (proxy.url("http"), proxy.url("socks5h"));
    let proxies = PROXIES.into_iter().zip([&*http, &http, &socks]);
    let mut variables = pairs(proxies.chain([(EXCEPTIONS, THIS_MACHINE)]));
    variables.push(("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
    variables
}

/// Those that keep a developer's own proxy away from the cluster. None where there is no such proxy.
pub fn of_namespace(
    config: &ClusterConfig,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<Variable> {
    if own_proxy(&read).is_none() {
        return Vec::new();
    }
    let before = both(EXCEPTIONS).iter().find_map(|name| read(name));
    let before = before.unwrap_or_else(|| THIS_MACHINE.to_owned());
    let domain = Some(&config.domain).filter(|domain| !domain.is_empty());
    let names = domain.into_iter().chain(&config.search);
    let names = names.map(|name| format!(".{name}"));
    let ranges = config.ranges.iter().map(ToString::to_string);
    let added = [".svc".to_owned()].into_iter().chain(names).chain(ranges);
    let all: Vec<String> = std::iter::once(before).chain(added).collect();
    pairs([(EXCEPTIONS, &*all.join(","))])
}

fn pairs<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Variable> {
    let pairs = variables.into_iter();
    pairs
        .flat_map(|(name, value)| both(name).map(|name| (name, value.to_owned())))
        .collect()
}

fn both(name: &str) -> [String; 2] {
    [name.to_owned(), name.to_lowercase()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_proxy_is_kept_away_from_the_cluster() {
        let config = ClusterConfig {
            domain: "cluster.local".to_owned(),
            search: vec!["shop.svc.cluster.local".to_owned()],
            ndots: 5,
            ranges: vec!["10.96.0.0/12".parse().expect("a range")],
        };
        let read = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            }
        };
        assert!(of_namespace(&config, read(&[("HTTP_PROXY", "")])).is_empty());
        let proxy = read(&[("https_proxy", "http://proxy:3128"), ("no_proxy", "corp")]);
        assert_eq!(own_proxy(proxy).as_deref(), Some("https_proxy"));
        let value = "corp,.svc,.cluster.local,.shop.svc.cluster.local,10.96.0.0/12";
        let expected = ["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), value.to_owned()));
        assert_eq!(of_namespace(&config, proxy), expected);
    }
}

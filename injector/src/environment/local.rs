//! Rewrites variables that name a Service to its local address.
//!
//! Notes show only the part that was replaced: the rest of a value may be a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A Service that a local port forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalService {
    /// All its names, in lower case.
    pub names: Vec<String>,
    /// Its port.
    pub port: u16,
    /// The local address.
    pub local: SocketAddr,
}

/// Suffixes of variables that hold only a host.
///
/// The same name with `PORT` in place of the suffix holds the port.
const HOST_ENDINGS: [&str; 5] = ["HOSTNAME", "HOST", "ADDRESS", "ADDR", "SERVER"];

/// Default ports of URL schemes.
const DEFAULT_PORTS: [(&str, u16); 14] = [
    ("http", 80),
    ("ws", 80),
    ("https", 443),
    ("wss", 443),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("mariadb", 3306),
    ("redis", 6379),
    ("rediss", 6379),
    ("mongodb", 27017),
    ("amqp", 5672),
    ("amqps", 5671),
    ("nats", 4222),
];

/// Rewrites the variables, and returns one line per change.
pub(super) fn point_to(
    variables: &mut BTreeMap<String, String>,
    services: &[LocalService],
) -> Vec<String> {
    let mut lines = Vec::new();
    // A Service that is forwarded from its own address needs no change.
    let is_elsewhere = |service: &&LocalService| {
        let own = service.local.ip().to_string();
        !service.names.contains(&own)
    };
    let services: Vec<LocalService> = services
        .iter()
        .filter(is_elsewhere)
        .map(|service| with_address(service, variables))
        .collect();
    for service in &services {
        for (name, value) in variables.iter_mut() {
            while let Some((found, changed)) = authority(value, service) {
                lines.push(format!("{name}: {found} is {} here", service.local));
                *value = changed;
            }
        }
    }
    hosts(variables, &services, &mut lines);
    lines
}

/// Adds the Service's cluster IP, which the kubelet writes into variables with the Service's name.
fn with_address(service: &LocalService, variables: &BTreeMap<String, String>) -> LocalService {
    let mut service = service.clone();
    let short = service.names.iter().find(|name| !name.contains('.'));
    let address = short.and_then(|name| {
        let name = name.to_ascii_uppercase().replace('-', "_");
        variables.get(&format!("{name}_SERVICE_HOST"))
    });
    service.names.extend(address.cloned());
    service
}

/// Finds the first `host:port`, or URL without a port, that means the service.
///
/// Returns that text, and the value with the local address in its place.
fn authority(value: &str, service: &LocalService) -> Option<(String, String)> {
    let lower = value.to_ascii_lowercase();
    for name in &service.names {
        for (at, _) in lower.match_indices(name.as_str()) {
            let before = lower[..at].bytes().next_back();
            if before.is_some_and(is_of_host) {
                continue;
            }
            let rest = &lower[at + name.len()..];
            let with_port = rest.strip_prefix(&format!(":{}", service.port));
            let end = match with_port {
                // A text before `@` is a user with a password.
                Some(after) if !after.starts_with(|c: char| c.is_ascii_digit() || c == '@') => {
                    value.len() - after.len()
                }
                None if has_default_port(&lower[..at], rest, service.port) => at + name.len(),
                _ => continue,
            };
            let changed = format!("{}{}{}", &value[..at], service.local, &value[end..]);
            return Some((value[at..end].to_owned(), changed));
        }
    }
    None
}

/// Is this a URL without a port whose scheme has this default port?
///
/// `before` ends like `postgres://user:password@`, and `rest` follows the host.
fn has_default_port(before: &str, rest: &str, port: u16) -> bool {
    if rest.starts_with(|c: char| c == ':' || c == '@' || (c.is_ascii() && is_of_host(c as u8))) {
        return false;
    }
    let Some((scheme, user)) = before.rsplit_once("://") else {
        return false;
    };
    let is_user = user.is_empty() || (user.ends_with('@') && !user.contains(['/', '?', '#', ' ']));
    let scheme = scheme.rsplit(|c: char| !c.is_ascii_alphanumeric()).next();
    let is_default = |(name, default): &(&str, u16)| scheme == Some(*name) && *default == port;
    is_user && DEFAULT_PORTS.iter().any(is_default)
}

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Rewrites variables whose whole value is a host, and their port variables.
fn hosts(
    variables: &mut BTreeMap<String, String>,
    services: &[LocalService],
    lines: &mut Vec<String>,
) {
    let names: Vec<String> = variables.keys().cloned().collect();
    for name in names {
        let Some(value) = variables.get(&name) else {
            continue;
        };
        let lower = value.to_ascii_lowercase();
        let lower = lower.trim_end_matches('.');
        let meant: Vec<&LocalService> = services
            .iter()
            .filter(|service| service.names.iter().any(|name| name == lower))
            .collect();
        let port_name = port_beside(&name).filter(|name| variables.contains_key(name));
        let port = port_name.as_ref().and_then(|name| variables.get(name));
        let is_port =
            |service: &&&LocalService| port.is_some_and(|port| *port == service.port.to_string());
        let Some(service) = meant.iter().find(is_port).or(meant.first()) else {
            continue;
        };
        let said = value.clone();
        let has_port = meant.iter().any(|service| is_port(&service));
        let local = service.local;
        variables.insert(name.clone(), local.ip().to_string());
        lines.push(format!("{name}: {said} is {} here", local.ip()));
        match port_name {
            Some(port_name) if has_port && local.port() != service.port => {
                variables.insert(port_name.clone(), local.port().to_string());
                lines.push(format!(
                    "{port_name}: {} is {} here",
                    service.port,
                    local.port()
                ));
            }
            Some(_) if has_port => {}
            _ if local.port() != service.port => lines.push(format!(
                "{name}: port {} of it is {} here, and no variable says so",
                service.port,
                local.port()
            )),
            _ => {}
        }
    }
}

/// The name of the port variable, such as `DB_PORT` for `DB_HOST`.
fn port_beside(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let ending = HOST_ENDINGS
        .iter()
        .find(|ending| upper.ends_with(*ending))?;
    Some(format!("{}PORT", &name[..name.len() - ending.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(port: u16, local: u16) -> LocalService {
        let names = [
            "postgres.shop.svc.cluster.local",
            "postgres.shop.svc",
            "postgres.shop",
            "postgres",
        ];
        LocalService {
            names: names.map(str::to_owned).to_vec(),
            port,
            local: ([127, 0, 0, 1], local).into(),
        }
    }

    fn changed(
        pairs: &[(&str, &str)],
        services: &[LocalService],
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables = pairs.collect();
        let lines = point_to(&mut variables, services);
        (variables, lines)
    }

    #[test]
    fn values_that_name_the_service_are_changed() {
        let table = [
            ("postgres.shop.svc:5432", "127.0.0.1:15432"),
            (
                "postgres://u:p@postgres:5432/db",
                "postgres://u:p@127.0.0.1:15432/db",
            ),
            (
                "postgres://postgres:postgres@POSTGRES/db",
                "postgres://postgres:postgres@127.0.0.1:15432/db",
            ),
            (
                "jdbc:postgresql://postgres.shop/db?x=1",
                "jdbc:postgresql://127.0.0.1:15432/db?x=1",
            ),
            (
                "postgres:5432,postgres.shop:5432",
                "127.0.0.1:15432,127.0.0.1:15432",
            ),
            ("host=postgres:5432;a=b", "host=127.0.0.1:15432;a=b"),
        ];
        for (value, expected) in table {
            let (variables, lines) = changed(&[("X", value)], &[service(5432, 15432)]);
            assert_eq!(variables["X"], expected);
            assert!(
                lines
                    .iter()
                    .all(|line| line.contains("127.0.0.1:15432 here")),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn other_values_stay() {
        let table = [
            "postgres:5433",
            "postgres:54321",
            "my-postgres:5432",
            "postgres.other:5432",
            "postgres-2:5432",
            "http://postgres/",
            "postgres://postgres:5432@db/x",
            "a postgres b",
            "postgres.shop.example.com:5432",
        ];
        for value in table {
            let (variables, lines) = changed(&[("X", value)], &[service(5432, 15432)]);
            assert_eq!(
                (variables["X"].as_str(), lines.len()),
                (value, 0),
                "{value}"
            );
        }
    }

    #[test]
    fn lines_show_no_secret() {
        let (_, lines) = changed(
            &[("DATABASE_URL", "postgres://u:s3cret@postgres:5432/db")],
            &[service(5432, 15432)],
        );
        assert_eq!(
            lines,
            ["DATABASE_URL: postgres:5432 is 127.0.0.1:15432 here"]
        );
    }

    #[test]
    fn hosts_change_with_their_ports() {
        let pairs = [
            ("PGHOST", "postgres"),
            ("PGPORT", "5432"),
            ("OTHER_PORT", "5432"),
        ];
        let (variables, lines) = changed(&pairs, &[service(5432, 15432)]);
        assert_eq!(
            (variables["PGHOST"].as_str(), variables["PGPORT"].as_str()),
            ("127.0.0.1", "15432")
        );
        assert_eq!(variables["OTHER_PORT"], "5432");
        assert_eq!(
            lines,
            [
                "PGHOST: postgres is 127.0.0.1 here",
                "PGPORT: 5432 is 15432 here"
            ]
        );
        let (_, lines) = changed(&[("DB_HOST", "postgres")], &[service(5432, 15432)]);
        assert_eq!(
            lines[1],
            "DB_HOST: port 5432 of it is 15432 here, and no variable says so"
        );
        let (_, lines) = changed(&[("DB_HOST", "postgres")], &[service(5432, 5432)]);
        assert_eq!(lines, ["DB_HOST: postgres is 127.0.0.1 here"]);
    }

    #[test]
    fn variables_of_the_kubelet_are_changed() {
        let pairs = [
            ("POSTGRES_SERVICE_HOST", "10.96.1.2"),
            ("POSTGRES_SERVICE_PORT", "5432"),
            ("POSTGRES_PORT", "tcp://10.96.1.2:5432"),
            ("POSTGRES_PORT_5432_TCP_ADDR", "10.96.1.2"),
            ("POSTGRES_PORT_5432_TCP_PORT", "5432"),
        ];
        let (variables, _) = changed(&pairs, &[service(5432, 15432)]);
        let values: Vec<&str> = variables.values().map(String::as_str).collect();
        assert_eq!(
            values,
            [
                "tcp://127.0.0.1:15432",
                "127.0.0.1",
                "15432",
                "127.0.0.1",
                "15432"
            ]
        );
    }
}

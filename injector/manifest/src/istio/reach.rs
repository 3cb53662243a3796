//! What developers' connections may reach beside their own namespace, and what an installation of their in-cluster end records of itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts::Mesh;
use super::names::{self, is_label};

/// Services of another namespace: `NAMESPACE[/SERVICE[:PORT]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reach {
    /// The namespace.
    pub namespace: String,
    /// One Service of it; `None`: all of them.
    pub service: Option<String>,
    /// One port of that Service; `None`: all of them.
    pub port: Option<u16>,
}

/// A text that names no Services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: expected NAMESPACE, NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT")]
pub struct InvalidReach(String);

impl FromStr for Reach {
    type Err = InvalidReach;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidReach(text.to_owned());
        let (namespace, service) = match text.split_once('/') {
            Some((namespace, service)) => (namespace, Some(service)),
            None => (text, None),
        };
        let (service, port) = match service.and_then(|service| service.split_once(':')) {
            Some((service, port)) => {
                let port = port.parse().ok().filter(|port: &u16| *port > 0);
                (Some(service), Some(port.ok_or_else(invalid)?))
            }
            None => (service, None),
        };
        if !is_label(namespace) || service.is_some_and(|service| !is_label(service)) {
            return Err(invalid());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            service: service.map(str::to_owned),
            port,
        })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.namespace)?;
        if let Some(service) = &self.service {
            write!(formatter, "/{service}")?;
        }
        match self.port {
            Some(port) => write!(formatter, ":{port}"),
            None => Ok(()),
        }
    }
}

impl From<Reach> for String {
    fn from(reach: Reach) -> Self {
        reach.to_string()
    }
}

impl TryFrom<String> for Reach {
    type Error = InvalidReach;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Reach {
    /// As `injector outbound --to` reads it. A full name ends with a dot: it is in no search list.
    pub(super) fn rule(&self, domain: &str) -> String {
        let namespace = &self.namespace;
        let host = match &self.service {
            Some(service) => format!("{service}.{namespace}.svc.{domain}."),
            None => format!("*.{namespace}.svc.{domain}"),
        };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// As a `Sidecar` names hosts.
    pub(super) fn hosts(&self, domain: &str) -> String {
        let namespace = &self.namespace;
        match &self.service {
            Some(service) => format!("{namespace}/{service}.{namespace}.svc.{domain}"),
            None => format!("{namespace}/*"),
        }
    }
}

/// What the StatefulSets of a namespace's connections record: so it need not be said again, and developers learn from it where the relays are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundSettings {
    /// The relays whose tunnels admit developers.
    pub mesh: Mesh,
    /// What may be reached beside Services of the namespace.
    pub to: Vec<Reach>,
    /// The service accounts under which there is one more StatefulSet each.
    pub service_accounts: Vec<String>,
}

impl OutboundSettings {
    /// Reads them from a StatefulSet; `None` where there are none that this version can read.
    pub fn read(stateful_set: &Value) -> Option<Self> {
        let metadata = &stateful_set["metadata"];
        if metadata["labels"][names::MANAGED_BY] != names::MANAGER {
            return None;
        }
        let text = metadata["annotations"][names::OUTBOUND_SETTINGS].as_str()?;
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_becomes_rule_and_hosts() {
        for (text, rule, hosts) in [
            ("data", "*.data.svc.cluster.local", "data/*"),
            (
                "data/postgres",
                "postgres.data.svc.cluster.local.",
                "data/postgres.data.svc.cluster.local",
            ),
            (
                "data/postgres:5432",
                "postgres.data.svc.cluster.local.:5432",
                "data/postgres.data.svc.cluster.local",
            ),
        ] {
            let reach: Reach = text.parse().expect(text);
            assert_eq!(reach.to_string(), text);
            assert_eq!(reach.rule("cluster.local"), rule);
            assert_eq!(reach.hosts("cluster.local"), hosts);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "data:5432",
            "data/",
            "/postgres",
            "data/postgres:",
            "data/postgres:0",
            "data/postgres:65536",
            "data/a.b",
            "a.b",
            "*",
            "data/*",
            "Data",
            "data/postgres/x",
        ] {
            assert!(text.parse::<Reach>().is_err(), "{text}");
        }
    }
}

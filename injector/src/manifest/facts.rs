//! What an operator says once about a workload: its ports, where the relay is, which filter, what is allowed. In a plain Envoy it stands in `workload.json`.

use std::net::SocketAddr;
use std::path::PathBuf;

use intercept_core::Limits;
use serde::{Deserialize, Serialize};

/// The version of `workload.json` that this build reads and writes.
pub const WORKLOAD_VERSION: u32 = 1;

/// The program whose requests are intercepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Always [`WORKLOAD_VERSION`].
    pub version: u32,
    /// What developers call it.
    pub name: String,
    /// At least one.
    pub ports: Vec<Port>,
    /// Where the tunnels end.
    pub relay: Relay,
    /// The filter.
    pub module: Module,
    /// What the operator allows.
    pub limits: Limits,
    /// Envoy's admin interface: there one can see whether Envoy has taken a change. `None`: that cannot be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
}

/// One port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// What developers call it.
    pub name: String,
    /// Where Envoy listens: the `destination.port` that the filter compares.
    pub number: u16,
    /// Where the in-cluster version listens.
    pub app: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The URL that a user types to reach it, without a path: shown in the line to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What a port speaks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, WebSocket included, whatever the client speaks.
    Http,
    /// HTTP/2 without TLS, whatever the client speaks.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// What the client speaks.
    Auto,
}

/// The in-cluster end of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Takes matched requests from Envoy, HTTP/1.1 and h2c.
    pub data: SocketAddr,
    /// Takes tunnels from developer machines.
    pub control: SocketAddr,
    /// Where `injector outbound` takes developer machines. `None`: connections into the cluster are not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<SocketAddr>,
}

/// The filter, a file that Envoy reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Absolute.
    pub path: PathBuf,
    /// Of its bytes when it was installed, in hexadecimal digits.
    pub sha256: String,
}

impl Module {
    /// A module with its bytes; `path` is absolute.
    pub fn new(path: PathBuf, bytes: &[u8]) -> Self {
        Self {
            path,
            sha256: crate::digest::sha256(bytes),
        }
    }
}

impl Workload {
    /// The port that a user means: its number or its name.
    pub fn port(&self, number_or_name: &str) -> Option<&Port> {
        self.ports
            .iter()
            .find(|port| port.name == number_or_name || port.number.to_string() == number_or_name)
    }

    /// The port that an intercept names.
    pub fn port_number(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

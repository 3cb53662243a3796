//! Why nothing can be rendered. Where, what, and what was expected.

use std::net::SocketAddr;

/// Facts from which nothing can be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFacts {
    /// The mesh's root namespace.
    #[error(
        "namespace `{0}`: it is the mesh's root namespace, where an EnvoyFilter or a WasmPlugin reaches every proxy of the mesh"
    )]
    RootNamespace(String),
    /// The namespace of our own relay.
    #[error("namespace `{0}`: the relay lives there; its own requests cannot be intercepted")]
    RelayNamespace(String),
    /// Not an RFC 1123 subdomain.
    #[error(
        "{what}: expected lower-case letters, digits, `-` and `.`, at most 253, found `{found}`"
    )]
    Name {
        /// Which name.
        what: &'static str,
        /// The name.
        found: String,
    },
    /// Its identity, or that of istiod, must not be reached.
    #[error(
        "namespace `{0}`: relays and istiod are never reached by developers' connections, nor what is beside them"
    )]
    NeverReached(String),
    /// Names of pods and labels are made of it.
    #[error(
        "service account: expected lower-case letters, digits and `-`, at most {most}, found `{found}`"
    )]
    ServiceAccount {
        /// The service account.
        found: String,
        /// How many characters it may have.
        most: usize,
    },
    /// Without a relay there is nothing to send requests to.
    #[error("relay replicas: expected at least 1")]
    NoRelay,
    /// Without a label, the objects would apply to every workload of the namespace.
    #[error("{0}: expected at least one label by which it selects its pods")]
    NoSelector(String),
    /// Nothing to intercept.
    #[error("{0}: expected at least one port")]
    NoPorts(String),
    /// The same port twice, or port 0.
    #[error("{workload}: port {port}: expected distinct ports, 1 to 65535")]
    Port {
        /// Which workload.
        workload: String,
        /// Which port.
        port: u16,
    },
    /// A sidecar reaches the program of its own pod only.
    #[error("{workload}: port {port}: expected the program on a loopback address, found `{found}`")]
    App {
        /// Which workload.
        workload: String,
        /// Which port.
        port: u16,
        /// Where the program is said to be.
        found: SocketAddr,
    },
    /// A module that the agents do not fetch, or that makes a VM per edit.
    #[error("module url: expected http://, https:// or oci://, found `{0}`")]
    ModuleUrl(String),
    /// A digest that nothing has.
    #[error("module sha256: expected 64 lower-case hexadecimal digits, found `{0}`")]
    Sha256(String),
}

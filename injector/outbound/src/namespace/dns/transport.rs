//! By what a query came, and so by what the host's resolvers are asked.

/// By what a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: the answer may have to be cut.
    Udp,
    /// A stream.
    Tcp,
}

//! What the engine asks of the cluster.

use std::io;
use std::net::IpAddr;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::domains::Domains;
use crate::{Destination, DialError};

/// The way into the cluster.
pub trait Dialer: Send + Sync + 'static {
    /// A connection to something in the cluster. Dropped, it resets the other end.
    type Stream: Send + 'static;

    /// Connects. Returns only once the other end has answered, or its kernel or network has.
    ///
    /// An error becomes what the program sees: [`DialError::Timeout`] is no answer at all, so that the program's own time-out strikes.
    fn dial(
        &self,
        destination: Destination,
    ) -> impl Future<Output = Result<Self::Stream, DialError>> + Send;

    /// Moves the bytes between a program and what it is connected to, until both directions have ended or one is reset.
    ///
    /// The end of a direction and a reset are passed on, and what came before a reset arrives before it. [`copy_both`](super::copy_both) does that for streams of tokio.
    fn transfer(program: TcpStream, stream: Self::Stream) -> impl Future<Output = ()> + Send;

    /// Asks the cluster's resolver: one DNS message (RFC 1035) without a length, and its answer.
    fn resolve(&self, message: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Is this an address of the cluster? Those in the resolver's answers need not be known to it.
    fn is_cluster(&self, address: IpAddr) -> bool;

    /// Which names the cluster's resolver is asked for.
    fn domains(&self) -> Domains;
}

//! Ports for child processes: known before the process starts, and reserved until the test ends.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of 127.0.0.1, bound without a listener: connecting to it is refused.
///
/// Envoy can bind it as well, since its listeners set `SO_REUSEPORT`; the kernel gives it to no other process.
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("SO_REUSEPORT");
        socket
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .expect("a free port");
        Self(socket)
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.addr().port()
    }
}

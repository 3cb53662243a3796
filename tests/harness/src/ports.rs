//! Ports that a child process binds: known before it starts, and taken by nobody else until the test ends.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of 127.0.0.1, bound but not listened on. Envoy can bind it beside us, since its listeners set `SO_REUSEPORT` as well; the kernel gives it to no one else.
/// While nobody listens, connecting to it is refused.
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    /// Takes a free one.
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

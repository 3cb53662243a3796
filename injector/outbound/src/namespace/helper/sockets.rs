//! Sockets of the namespace: those that take captured traffic, the resolver's, and further ones on request.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, bind, getsockname, listen};

use crate::namespace::address::{OWN_MARK, RESOLVER};
use crate::namespace::control::SocketKind;
use crate::namespace::error::{SetupError, Step};
use crate::namespace::rules::Ports;

/// The kernel takes the smaller of this and net.core.somaxconn, 4096 by default.
const BACKLOG: i32 = 4096;

/// The sockets that the engine gets. Their order is the order of [`Self::descriptors`].
#[derive(Debug)]
pub struct Sockets {
    resolver: [OwnedFd; 2],
    captured: Vec<[OwnedFd; 2]>,
    ports: Ports,
    /// The queue of held SYNs.
    pub queue: Option<OwnedFd>,
}

impl Sockets {
    /// Opens all but the queue.
    pub fn open(has_ipv6: bool) -> Result<Self, SetupError> {
        let any4 = Ipv4Addr::UNSPECIFIED.into();
        let any6 = Ipv6Addr::UNSPECIFIED.into();
        let mut ports = Ports { tcp: 0, udp: 0 };
        let mut captured = Vec::new();
        for address in [Some(any4), Some(any6).filter(|_| has_ipv6)]
            .into_iter()
            .flatten()
        {
            let tcp = open(
                SocketType::STREAM,
                SocketAddr::new(address, ports.tcp),
                true,
            )?;
            let udp = open(SocketType::DGRAM, SocketAddr::new(address, ports.udp), true)?;
            // The kernel chooses for IPv4, and IPv6 follows: a rule names one port for both.
            ports = Ports {
                tcp: port_of(&tcp)?,
                udp: port_of(&udp)?,
            };
            captured.push([tcp, udp]);
        }
        Ok(Self {
            resolver: [
                open(SocketType::STREAM, RESOLVER, false)?,
                open(SocketType::DGRAM, RESOLVER, false)?,
            ],
            captured,
            ports,
            queue: None,
        })
    }

    /// Where the rules send what they capture.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The port of the transparent listeners.
    pub fn port(&self) -> u16 {
        self.ports.tcp
    }

    /// TCP and UDP of the resolver, of IPv4, of IPv6 where there is one, and the queue where there is one.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let captured = self.captured.iter().flatten();
        self.resolver
            .iter()
            .chain(captured)
            .chain(&self.queue)
            .map(AsFd::as_fd)
            .collect()
    }
}

/// Does the kernel have IPv6 at all?
pub fn has_ipv6() -> bool {
    !matches!(
        socket(SocketType::DGRAM, true),
        Err(error) if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
    )
}

/// Makes a socket that the engine asks for.
pub fn make(kind: SocketKind) -> io::Result<OwnedFd> {
    match kind {
        SocketKind::Stream { is_ipv6 } => {
            let socket = socket(SocketType::STREAM, is_ipv6)?;
            setsockopt(&socket, sockopt::Mark, &OWN_MARK)?;
            Ok(socket)
        }
        SocketKind::Datagram { is_ipv6 } => {
            let socket = socket(SocketType::DGRAM, is_ipv6)?;
            // It answers from the address to which a program has sent.
            setsockopt(&socket, sockopt::IpTransparent, &true)?;
            Ok(socket)
        }
    }
}

fn open(kind: SocketType, at: SocketAddr, is_transparent: bool) -> Result<OwnedFd, SetupError> {
    try_open(kind, at, is_transparent).map_err(|error| SetupError::io(Step::Sockets, at, &error))
}

fn try_open(kind: SocketType, at: SocketAddr, is_transparent: bool) -> io::Result<OwnedFd> {
    let socket = socket(kind, at.is_ipv6())?;
    if is_transparent {
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
        match (kind == SocketType::DGRAM, at.is_ipv6()) {
            (true, true) => setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?,
            (true, false) => setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?,
            (false, _) => {}
        }
    }
    bind(&socket, &at)?;
    if kind == SocketType::STREAM {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

fn socket(kind: SocketType, is_ipv6: bool) -> io::Result<OwnedFd> {
    let family = match is_ipv6 {
        true => AddressFamily::INET6,
        false => AddressFamily::INET,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, kind, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if is_ipv6 {
        set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn port_of(socket: &OwnedFd) -> Result<u16, SetupError> {
    let address = getsockname(socket).and_then(SocketAddr::try_from);
    let address = address.map_err(|error| SetupError::io(Step::Sockets, "port", &error.into()))?;
    Ok(address.port())
}

//! Datagrams: to the host's network and back, and questions to any resolver.

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::connector::{Connector, Place};
use super::inside::Inside;
use crate::namespace::address::DNS_PORT;
use crate::namespace::dialer::Dialer;
use crate::namespace::dns::{Resolver, Transport};
use crate::namespace::event::{Event, Events};
use crate::namespace::queue::Ends;

/// How long a flow may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// Flows at once; the datagrams of more are lost.
const MAX_FLOWS: usize = 4096;

/// Destinations in the cluster that were told of.
const MAX_TOLD: usize = 64;

/// The longest datagram.
const LENGTH: usize = 64 * 1024;

/// What datagrams need.
#[derive(Debug)]
pub struct Datagrams<D> {
    /// Tells where they go.
    pub connector: Arc<Connector<D>>,
    /// Answers questions.
    pub resolver: Arc<Resolver<D>>,
    /// Makes the sockets that answer.
    pub inside: Inside,
    /// Told of datagrams into the cluster.
    pub events: Events,
    /// What is under way.
    pub flows: Flows,
}

/// The host's ends of flows, by the ends that the program sees.
#[derive(Debug, Default)]
pub struct Flows(Mutex<HashMap<Ends, Arc<UdpSocket>>>);

impl Flows {
    fn lock(&self) -> MutexGuard<'_, HashMap<Ends, Arc<UdpSocket>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Dialer> Datagrams<D> {
    /// Serves the datagrams that one transparent socket receives.
    pub async fn serve(self: Arc<Self>, captured: UdpSocket) {
        let mut buffer = vec![0; LENGTH];
        let mut told = HashSet::new();
        loop {
            let Ok((length, Some(ends))) = receive(&captured, &mut buffer).await else {
                continue;
            };
            let datagram = &buffer[..length];
            match self.connector.place(ends.destination) {
                _ if ends.destination.port() == DNS_PORT => {
                    tokio::spawn(self.clone().answer(ends, datagram.to_vec()));
                }
                Place::Host => self.pass(ends, datagram).await,
                Place::Cluster if told.len() < MAX_TOLD && told.insert(ends.destination) => {
                    self.events.tell(Event::DatagramsLost(ends.destination));
                }
                _ => {}
            }
        }
    }

    async fn answer(self: Arc<Self>, ends: Ends, query: Vec<u8>) {
        let answer = self.resolver.answer(&query, Transport::Udp).await;
        let socket = self.inside.datagrams(ends.destination, ends.source).await;
        if let (Some(answer), Ok(socket)) = (answer, socket) {
            let _ = socket.send(&answer).await;
        }
    }

    async fn pass(self: &Arc<Self>, ends: Ends, datagram: &[u8]) {
        let known = self.flows.lock().get(&ends).cloned();
        let host = match known {
            Some(host) => host,
            None => match self.open(ends).await {
                Ok(host) => host,
                Err(_) => return,
            },
        };
        let _ = host.send(datagram).await;
    }

    async fn open(self: &Arc<Self>, ends: Ends) -> io::Result<Arc<UdpSocket>> {
        if self.flows.lock().len() >= MAX_FLOWS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let any: IpAddr = match ends.destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let host = UdpSocket::bind((any, 0)).await?;
        host.connect(ends.destination).await?;
        let program = self.inside.datagrams(ends.destination, ends.source).await?;
        let host = Arc::new(host);
        self.flows.lock().insert(ends, host.clone());
        let (this, ours) = (self.clone(), host.clone());
        tokio::spawn(async move {
            let _ = exchange(&program, &ours).await;
            this.flows.lock().remove(&ends);
        });
        Ok(host)
    }
}

/// Until nothing has come for a while, or an end is unreachable.
///
/// From the second datagram on the kernel gives a program's to the connected socket, not to the transparent one.
async fn exchange(program: &UdpSocket, host: &UdpSocket) -> io::Result<()> {
    let (mut up, mut down) = (vec![0; LENGTH], vec![0; LENGTH]);
    loop {
        let one = async {
            tokio::select! {
                length = program.recv(&mut up) => host.send(&up[..length?]).await,
                length = host.recv(&mut down) => program.send(&down[..length?]).await,
            }
        };
        timeout(IDLE, one).await??;
    }
}

/// A datagram, and from where to where it was sent.
async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<Ends>)> {
    let receive = || {
        let mut slices = [IoSliceMut::new(buffer)];
        let mut space = nix::cmsg_space!(nix::libc::sockaddr_in6);
        let descriptor = socket.as_raw_fd();
        let flags = MsgFlags::empty();
        let received =
            recvmsg::<SockaddrStorage>(descriptor, &mut slices, Some(&mut space), flags)?;
        let source = received.address.as_ref().and_then(address);
        let destination = received.cmsgs()?.find_map(original_destination);
        let ends = source.zip(destination).map(|(source, destination)| Ends {
            source,
            destination,
        });
        Ok((received.bytes, ends))
    };
    socket.async_io(Interest::READABLE, receive).await
}

fn original_destination(message: ControlMessageOwned) -> Option<SocketAddr> {
    match message {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => {
            let address = Ipv4Addr::from(to.sin_addr.s_addr.to_ne_bytes());
            Some((address, u16::from_be(to.sin_port)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(to) => {
            let address = Ipv6Addr::from(to.sin6_addr.s6_addr);
            Some((address, u16::from_be(to.sin6_port)).into())
        }
        _ => None,
    }
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address.as_sockaddr_in().map(|a| (a.ip(), a.port()).into());
    ipv4.or_else(|| {
        let ipv6 = address.as_sockaddr_in6()?;
        Some((ipv6.ip(), ipv6.port()).into())
    })
}

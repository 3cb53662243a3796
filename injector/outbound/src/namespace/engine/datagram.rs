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

/// What is under way, by the ends that the program sees.
#[derive(Debug, Default)]
pub struct Flows(Mutex<HashMap<Ends, Flow>>);

/// Where a program's datagrams go.
#[derive(Debug, Clone)]
enum Flow {
    /// Out of this socket of the host.
    Host(Arc<UdpSocket>),
    /// To the resolver, whose answers go out of this socket of the namespace.
    Resolver(Arc<UdpSocket>),
}

impl Flows {
    fn lock(&self) -> MutexGuard<'_, HashMap<Ends, Flow>> {
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
            let is_question = ends.destination.port() == DNS_PORT;
            match self.connector.place(ends.destination) {
                Place::Cluster if !is_question => {
                    if told.len() < MAX_TOLD && told.insert(ends.destination) {
                        self.events.tell(Event::DatagramsLost(ends.destination));
                    }
                }
                Place::Host | Place::Resolver | Place::Cluster => {
                    // What cannot be sent is lost, as datagrams are.
                    let _ = self.pass(ends, datagram, is_question).await;
                }
                Place::Nowhere | Place::Group => {}
            }
        }
    }

    async fn pass(
        self: &Arc<Self>,
        ends: Ends,
        datagram: &[u8],
        is_question: bool,
    ) -> io::Result<()> {
        let known = self.flows.lock().get(&ends).cloned();
        let flow = match known {
            Some(flow) => flow,
            None => self.open(ends, is_question).await?,
        };
        match flow {
            Flow::Host(host) => host.send(datagram).await.map(drop),
            Flow::Resolver(program) => {
                tokio::spawn(self.clone().answer(program, datagram.to_vec()));
                Ok(())
            }
        }
    }

    async fn open(self: &Arc<Self>, ends: Ends, is_question: bool) -> io::Result<Flow> {
        if self.flows.lock().len() >= MAX_FLOWS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let program = self.inside.datagrams(ends.destination, ends.source).await?;
        let program = Arc::new(program);
        let flow = match is_question {
            true => Flow::Resolver(program.clone()),
            false => Flow::Host(Arc::new(connect(ends.destination).await?)),
        };
        self.flows.lock().insert(ends, flow.clone());
        let (this, ours) = (self.clone(), flow.clone());
        tokio::spawn(async move {
            let _ = match ours {
                Flow::Host(host) => exchange(&program, &host).await,
                Flow::Resolver(_) => this.questions(&program).await,
            };
            this.flows.lock().remove(&ends);
        });
        Ok(flow)
    }

    /// Until none has come for a while. From the second datagram on the kernel gives a program's to the connected socket, not to the transparent one.
    async fn questions(self: &Arc<Self>, program: &Arc<UdpSocket>) -> io::Result<()> {
        let mut query = vec![0; LENGTH];
        loop {
            let length = timeout(IDLE, program.recv(&mut query)).await??;
            let query = query[..length].to_vec();
            tokio::spawn(self.clone().answer(program.clone(), query));
        }
    }

    async fn answer(self: Arc<Self>, program: Arc<UdpSocket>, query: Vec<u8>) {
        if let Some(answer) = self.resolver.answer(&query, Transport::Udp).await {
            let _ = program.send(&answer).await;
        }
    }
}

/// A socket of the host that sends to `destination`.
async fn connect(destination: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(destination).await?;
    Ok(socket)
}

/// Until nothing has come for a while, or an end is unreachable.
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

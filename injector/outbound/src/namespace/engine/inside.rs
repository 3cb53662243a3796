//! Sockets inside the namespace, made by the helper on request.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixDatagram};
use tokio::sync::{mpsc, oneshot};

use crate::namespace::control::{self, SocketKind};

/// Requests that wait for the helper.
const MAX_WAITING: usize = 64;

/// A request, and where its answer goes.
type Request = (SocketKind, oneshot::Sender<io::Result<OwnedFd>>);

/// Makes and connects sockets inside the namespace.
#[derive(Debug, Clone)]
pub struct Inside {
    /// From all tasks that need a socket → to the task that talks to the helper.
    requests_tx: mpsc::Sender<Request>,
    has_ipv6: bool,
}

impl Inside {
    /// A handle, and the task that serves it until the helper is gone.
    pub fn new(control: UnixDatagram, has_ipv6: bool) -> (Self, impl Future<Output = ()>) {
        let (requests_tx, requests) = mpsc::channel(MAX_WAITING);
        let inside = Self {
            requests_tx,
            has_ipv6,
        };
        (inside, serve(control, requests))
    }

    /// Connects to what listens at `port` of the namespace's loopback. A refusal is its kernel's.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let first = self.connect_to((Ipv4Addr::LOCALHOST, port).into()).await;
        match first {
            Err(error) if self.has_ipv6 && error.kind() == io::ErrorKind::ConnectionRefused => {
                self.connect_to((Ipv6Addr::LOCALHOST, port).into()).await
            }
            other => other,
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let is_ipv6 = address.is_ipv6();
        let socket = self.socket(SocketKind::Stream { is_ipv6 }).await?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        socket.connect(address).await
    }

    /// A socket that sends datagrams from `source`, whosever address that is, to a program at `to`.
    pub async fn datagrams(&self, source: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
        let is_ipv6 = source.is_ipv6();
        let socket = self.socket(SocketKind::Datagram { is_ipv6 }).await?;
        rustix::net::bind(&socket, &source)?;
        rustix::net::connect(&socket, &to)?;
        UdpSocket::from_std(socket.into())
    }

    async fn socket(&self, kind: SocketKind) -> io::Result<OwnedFd> {
        let gone = || io::Error::other("the namespace's helper has ended");
        let (answer_tx, answer) = oneshot::channel();
        let request = (kind, answer_tx);
        self.requests_tx.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// One request after another, each to its end: a caller that has given up must not leave its answer to the next.
async fn serve(control: UnixDatagram, mut requests: mpsc::Receiver<Request>) {
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some((kind, answer_tx)) = request else { return };
                let _ = answer_tx.send(ask(&control, kind).await);
            }
            // It sends nothing unasked, so this is its end.
            _ = receive(&control) => return,
        }
    }
}

async fn ask(control: &UnixDatagram, kind: SocketKind) -> io::Result<OwnedFd> {
    let send = || control::send(control, &kind.encode(), &[]);
    control.async_io(Interest::WRITABLE, send).await?;
    let (message, descriptors) = receive(control).await?;
    if let Some(socket) = descriptors.into_iter().next() {
        return Ok(socket);
    }
    let errno = str::from_utf8(&message).ok().and_then(|n| n.parse().ok());
    Err(errno.map_or_else(
        || io::ErrorKind::UnexpectedEof.into(),
        io::Error::from_raw_os_error,
    ))
}

/// One message of the helper.
pub async fn receive(control: &UnixDatagram) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let receive = || control::receive(control);
    control.async_io(Interest::READABLE, receive).await
}

//! SYNs wait here until their dial has an outcome, so that what a program sees of its connection is the truth.

use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::connector::Connector;
use super::pending::{ABANDONED_AFTER, Pending, Seen};
use crate::DialError;
use crate::namespace::dialer::Dialer;
use crate::namespace::queue::{Ends, Packet, packets, verdict_message};
use crate::namespace::verdict::{Mark, Verdict};

/// How long a dial may take: a little less than a kernel sends a SYN again and again (127 s by default).
const DIAL_TIMEOUT: Duration = Duration::from_secs(120);

/// The queue's socket. tokio has no type for netlink; of this one only readiness is used.
#[derive(Debug)]
pub struct Queue(UdpSocket);

impl Queue {
    /// Takes the socket that the helper has opened.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdUdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(UdpSocket::from_std(socket)?))
    }

    async fn packets(&self, buffer: &mut [u8]) -> io::Result<Vec<Packet>> {
        let receive = || Ok(recv(&self.0, &mut buffer[..], RecvFlags::empty())?.0);
        let length = self.0.async_io(Interest::READABLE, receive).await?;
        Ok(packets(&buffer[..length]))
    }

    fn decide(&self, id: u32, verdict: Verdict) {
        // Where that fails, the packet is lost and sent again.
        let _ = send(&self.0, &verdict_message(id, verdict), SendFlags::empty());
    }
}

/// Dials for each SYN, and decides what becomes of it.
pub async fn hold<D: Dialer>(
    queue: Queue,
    connector: Arc<Connector<D>>,
    pending: Arc<Pending<D::Stream>>,
) {
    let queue = Arc::new(queue);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // An error is a queue that ran over (ENOBUFS): its SYNs are sent again.
        for packet in queue.packets(&mut buffer).await.unwrap_or_default() {
            let Some(ends) = packet.ends else {
                queue.decide(packet.id, Verdict::Drop);
                continue;
            };
            match pending.begin(ends) {
                Seen::Dialling => queue.decide(packet.id, Verdict::Drop),
                Seen::Done => queue.decide(packet.id, Verdict::Repeat(Mark::Open)),
                Seen::Never => {
                    let (queue, connector) = (queue.clone(), connector.clone());
                    let pending = pending.clone();
                    tokio::spawn(async move {
                        let verdict = dial(ends, &connector, &pending).await;
                        queue.decide(packet.id, verdict);
                    });
                }
            }
        }
    }
}

async fn dial<D: Dialer>(
    ends: Ends,
    connector: &Connector<D>,
    pending: &Pending<D::Stream>,
) -> Verdict {
    let outcome = timeout(DIAL_TIMEOUT, connector.connect(ends.destination)).await;
    match outcome.unwrap_or(Err(DialError::Timeout)) {
        Ok(upstream) => {
            pending.finish(ends, upstream);
            Verdict::Repeat(Mark::Open)
        }
        Err(error) => {
            pending.fail(ends);
            verdict(error)
        }
    }
}

fn verdict(error: DialError) -> Verdict {
    match error {
        DialError::Refused => Verdict::Repeat(Mark::Refused),
        DialError::Unreachable | DialError::Unknown => Verdict::Repeat(Mark::Unreachable),
        DialError::Denied => Verdict::Repeat(Mark::Denied),
        DialError::Timeout => Verdict::Drop,
    }
}

/// Closes what no program has taken.
pub async fn sweep<S>(pending: Arc<Pending<S>>) {
    let mut ticks = interval(ABANDONED_AFTER / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pending.sweep();
    }
}

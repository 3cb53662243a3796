//! Starts the namespace and everything that serves it.

use std::fs;
use std::io;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::{Arc, OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::capture::Capture;
use super::connector::Connector;
use super::datagram::{Datagrams, Flows};
use super::helper_process::{self, HelperProcess, Sockets, Started};
use super::inside::Inside;
use super::local_server::LocalServer;
use super::pending::Pending;
use super::published::Published;
use super::publisher::{Publish, Publisher};
use super::splice::Pipes;
use super::syn::{Queue, hold, sweep};
use crate::domains::Domains;
use crate::namespace::address::RESOLVER;
use crate::namespace::control::Files;
use crate::namespace::dialer::Dialer;
use crate::namespace::dns::{Resolver, serve_datagrams, serve_listener};
use crate::namespace::error::{SetupError, Step};
use crate::namespace::event::{Event, Events};
use crate::namespace::hold::Hold;
use crate::namespace::learned::Learned;
use crate::namespace::membership::Membership;

const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";

/// What may be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`Membership::find`] finds the namespace by, on the command line of the helper.
    pub label: String,
    /// Which listeners of the namespace are published on the host's loopback.
    pub publish: Publish,
}

/// A network namespace whose programs reach the cluster and the host's network.
///
/// Dropped, it takes no more connections; those that are open end with their programs or with this process.
#[derive(Debug)]
pub struct Namespace {
    helper: HelperProcess,
    hold: Hold,
    open_files: Option<u64>,
    inside: Inside,
    published: Arc<Published>,
    /// Events. From the engine's tasks → to the caller of [`Self::next_event`].
    events_rx: mpsc::Receiver<Event>,
    /// Stopped with this handle.
    _tasks: JoinSet<()>,
}

impl Namespace {
    /// Makes a namespace. Call it in a tokio runtime with I/O and time, in a program that begins with [`helper::is_requested`](crate::namespace::helper::is_requested).
    ///
    /// Raises how many files this process may open; [`Membership::join`] puts that back for the command.
    pub async fn start<D: Dialer>(dialer: D, options: Options) -> Result<Self, SetupError> {
        let started = helper_process::start(&options.label, &files(&dialer.domains())).await?;
        let open_files = raise_open_files();
        serve(dialer, options, started, open_files)
            .map_err(|error| SetupError::io(Step::Helper, "sockets", &error))
    }

    /// What a process needs to join.
    pub fn membership(&self) -> Membership {
        Membership {
            helper: self.helper.id(),
            open_files: self.open_files,
        }
    }

    /// How connections wait for their dial. [`Hold::None`] is worth a warning.
    pub fn hold(&self) -> Hold {
        self.hold
    }

    /// The way to what listens in the namespace.
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// The way to what listens in the namespace, or else on the host.
    pub fn local_server(&self) -> LocalServer {
        LocalServer::new(self.inside.clone(), self.published.clone())
    }

    /// Waits for something to tell. Never returns once nothing more can happen.
    pub async fn next_event(&mut self) -> Event {
        match self.events_rx.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

/// Runs the whole setup and undoes it: can this system have a namespace, and how do connections wait in it?
pub async fn probe() -> Result<Hold, SetupError> {
    let domains = Domains {
        cluster: String::new(),
        search: Vec::new(),
        ndots: 1,
    };
    let started = helper_process::start("", &files(&domains)).await?;
    Ok(started.ready.hold)
}

fn serve<D: Dialer>(
    dialer: D,
    options: Options,
    started: Started,
    open_files: Option<u64>,
) -> io::Result<Namespace> {
    let Started {
        process: helper,
        ready,
        sockets,
        control,
    } = started;
    let dialer = Arc::new(dialer);
    let learned = Arc::new(Learned::default());
    let published = Arc::new(Published::default());
    let pipes = Pipes::default();
    let (events, events_rx) = Events::channel();
    let (inside, helper_end) = Inside::new(control, ready.has_ipv6);
    let resolver = Arc::new(Resolver::new(dialer.clone(), learned.clone()));
    let connector = Arc::new(Connector::new(dialer, learned, published.clone()));
    let pending = Arc::new(Pending::default());
    let capture = Arc::new(Capture {
        connector: connector.clone(),
        pending: pending.clone(),
        resolver: resolver.clone(),
        pipes: pipes.clone(),
    });
    let datagrams = Arc::new(Datagrams {
        connector: connector.clone(),
        resolver: resolver.clone(),
        inside: inside.clone(),
        events: events.clone(),
        flows: Flows::default(),
    });
    let publisher = Publisher {
        helper: helper.id(),
        publish: options.publish,
        own_port: ready.port,
        inside: inside.clone(),
        published: published.clone(),
        pipes,
        events: events.clone(),
    };
    let mut tasks = JoinSet::new();
    let Sockets {
        resolver: (resolver_tcp, resolver_udp),
        captured,
        queue,
    } = sockets;
    tasks.spawn(serve_listener(listener(resolver_tcp)?, resolver.clone()));
    tasks.spawn(serve_datagrams(datagram(resolver_udp)?, resolver));
    for (tcp, udp) in captured {
        tasks.spawn(capture.clone().accept(listener(tcp)?));
        tasks.spawn(datagrams.clone().serve(datagram(udp)?));
    }
    if let Some(queue) = queue {
        tasks.spawn(hold(Queue::new(queue)?, connector, pending.clone()));
    }
    tasks.spawn(sweep(pending));
    tasks.spawn(publisher.run());
    tasks.spawn(async move {
        helper_end.await;
        events.tell(Event::HelperLost);
    });
    Ok(Namespace {
        helper,
        hold: ready.hold,
        open_files,
        inside,
        published,
        events_rx,
        _tasks: tasks,
    })
}

fn listener(socket: StdTcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

fn datagram(socket: StdUdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// The files that programs find names by.
fn files(domains: &Domains) -> Files {
    let search = domains.search.join(" ");
    let search = match search.is_empty() {
        true => String::new(),
        false => format!("search {search}\n"),
    };
    let nsswitch_conf = fs::read_to_string(NSSWITCH_CONF).ok();
    Files {
        resolv_conf: format!(
            "{search}nameserver {}\noptions ndots:{}\n",
            RESOLVER.ip(),
            domains.ndots
        ),
        nsswitch_conf: nsswitch_conf.map(|text| with_dns(&text)),
    }
}

/// Without the modules that ask the host's resolvers by other ways than DNS: `resolve`, `mdns`, `libvirt`.
fn with_dns(nsswitch_conf: &str) -> String {
    let others = nsswitch_conf
        .lines()
        .filter(|line| !line.trim_start().starts_with("hosts:"));
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    text.push_str("hosts: files dns\n");
    text
}

/// Raises the limit to what is allowed, since each connection needs two descriptors, and returns what it was at first.
fn raise_open_files() -> Option<u64> {
    static FIRST: OnceLock<Option<u64>> = OnceLock::new();
    let limit = getrlimit(Resource::Nofile);
    let first = *FIRST.get_or_init(|| limit.current);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // It works with fewer, for fewer connections.
    let _ = setrlimit(Resource::Nofile, raised);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_dns_find_hosts() {
        let text =
            "passwd: files systemd\nhosts: files mdns4_minimal [NOTFOUND=return] resolve dns\n";
        assert_eq!(with_dns(text), "passwd: files systemd\nhosts: files dns\n");
    }
}

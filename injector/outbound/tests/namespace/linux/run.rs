//! Runs a command in the namespace, with this machine's loopback as the cluster.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use intercept_outbound::namespace::{
    Dialer, Domains, Event, Membership, Namespace, Options, Publish, copy_both,
};
use intercept_outbound::{Destination, DialError};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The first argument of the process that becomes the command.
pub const JOIN: &str = "--join";

/// What the label of a namespace begins with; its working directory follows.
pub const LABEL: &str = "fixture in ";

/// Set for a namespace within a namespace: it has another cluster.
pub const INNER: &str = "FIXTURE_INNER";

/// Ports of the cluster that answer as no loopback does.
pub const SILENT_PORT: u16 = 9993;
/// See [`SILENT_PORT`].
pub const UNREACHABLE_PORT: u16 = 9994;
/// See [`SILENT_PORT`].
pub const DENIED_PORT: u16 = 9995;

/// An address that only the resolver knows to be the cluster's.
const LEARNED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// `run [--publish] -- CMD`.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let code = runtime.block_on(run_command(arguments));
    runtime.shutdown_background();
    code
}

async fn run_command(arguments: &[OsString]) -> ExitCode {
    let split = arguments.iter().position(|word| word == "--");
    let (flags, command) = arguments.split_at(split.expect("a command"));
    let publish = match flags.iter().any(|flag| flag == "--publish") {
        true => Publish::All,
        false => Publish::None,
    };
    let began = Instant::now();
    let label = LABEL.to_owned() + &std::env::var("PWD").unwrap_or_default();
    let options = Options { label, publish };
    let started = match std::env::var(super::tunnel::PORTS) {
        Ok(ports) => Namespace::start(super::tunnel::dialer(&ports).await, options).await,
        Err(_) => Namespace::start(Loopback::new(), options).await,
    };
    let mut namespace = match started {
        Ok(namespace) => namespace,
        Err(error) => {
            let cause = error.cause().unwrap_or_default();
            eprintln!("fixture: error: {error}; {cause}; hint: {}", error.hint());
            return ExitCode::FAILURE;
        }
    };
    let membership = namespace.membership();
    let took = began.elapsed().as_micros();
    let (hold, helper) = (namespace.hold().as_str(), membership.helper);
    eprintln!("fixture: ready {took} us, {hold}, helper {helper}");
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("a path"))
        .arg(JOIN)
        .arg(std::process::id().to_string())
        .arg(membership.to_string())
        .args(&command[1..])
        .spawn()
        .expect("a child");
    let inside = namespace.inside().clone();
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.expect("a status");
                let code = status.code().or(status.signal().map(|signal| 128 + signal));
                return ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1));
            }
            event = namespace.next_event() => {
                eprintln!("fixture: {event:?}");
                if let Event::Published(port) = event {
                    let outcome = inside.connect(port).await.map(|_| "connected");
                    eprintln!("fixture: inside {port}: {outcome:?}");
                }
            }
        }
    }
}

/// `--join ENGINE WORD CMD`.
pub fn join(arguments: &[OsString]) -> ExitCode {
    set_parent_process_death_signal(Some(Signal::TERM)).expect("a death signal");
    let word = |at: usize| arguments[at].to_str().expect("a word");
    // It may be gone before its death could be watched.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_pid().to_string());
    if parent.as_deref() != Some(word(0)) {
        return ExitCode::FAILURE;
    }
    let membership: Membership = word(1).parse().expect("a membership");
    membership.join().expect("the namespace");
    let error = Command::new(&arguments[2]).args(&arguments[3..]).exec();
    eprintln!("fixture: {error}");
    ExitCode::from(127)
}

/// `enter LABEL CMD`: another command in the same namespace.
pub fn enter(arguments: &[OsString]) -> ExitCode {
    let label = arguments[0].to_str().expect("a word");
    let Some(membership) = Membership::find(label).expect("processes") else {
        eprintln!("fixture: {label}: not found");
        return ExitCode::FAILURE;
    };
    membership.join().expect("the namespace");
    let error = Command::new(&arguments[1]).args(&arguments[2..]).exec();
    eprintln!("fixture: {error}");
    ExitCode::from(127)
}

/// 10.96.0.0/16 and fd00:96::/32 are the loopback's addresses of the same family and port.
struct Loopback {
    domain: &'static str,
    second: u8,
}

impl Loopback {
    fn new() -> Self {
        match std::env::var_os(INNER) {
            None => Self {
                domain: "cluster.local",
                second: 96,
            },
            Some(_) => Self {
                domain: "inner.local",
                second: 97,
            },
        }
    }

    fn addresses(&self, name: &str) -> Option<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        let ipv4 = Ipv4Addr::new(10, self.second, 0, 5);
        let ipv6 = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 5);
        let name = name.strip_suffix(self.domain)?;
        match name.strip_suffix(".svc.")? {
            "web.shop" | "postgres.shop" => Some((Some(ipv4), None)),
            "both.shop" => Some((Some(ipv4), Some(ipv6))),
            "v6.shop" => Some((None, Some(ipv6))),
            "learned.shop" => Some((Some(LEARNED), None)),
            _ => None,
        }
    }
}

impl Dialer for Loopback {
    type Stream = Resettable;

    async fn dial(&self, destination: Destination) -> Result<Resettable, DialError> {
        let Destination::Address(to) = destination else {
            return Err(DialError::Unknown);
        };
        match to.port() {
            SILENT_PORT => std::future::pending().await,
            UNREACHABLE_PORT => return Err(DialError::Unreachable),
            DENIED_PORT => return Err(DialError::Denied),
            _ => {}
        }
        let loopback: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let stream = TcpStream::connect((loopback, to.port())).await;
        let stream = stream.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Refused,
            _ => DialError::Unreachable,
        })?;
        let _ = stream.set_nodelay(true);
        Ok(Resettable {
            stream,
            is_read: false,
            is_shut: false,
        })
    }

    async fn transfer(program: TcpStream, stream: Resettable) {
        copy_both(program, stream).await;
    }

    async fn resolve(&self, query: Bytes) -> io::Result<Bytes> {
        let (name, end) = question(&query);
        let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
        let known = self.addresses(name.trim_end_matches('.'));
        let data: Vec<u8> = match (known, kind) {
            (Some((Some(ipv4), _)), 1) => ipv4.octets().into(),
            (Some((_, Some(ipv6))), 28) => ipv6.octets().into(),
            _ => Vec::new(),
        };
        let mut answer = query[..end].to_vec();
        answer[2] |= 0x80;
        answer[3] = if known.is_some() { 0x80 } else { 0x83 };
        answer[6..12].copy_from_slice(&[0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
        if !data.is_empty() {
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 5, 0, data.len() as u8]);
            answer.extend(data);
        }
        Ok(answer.into())
    }

    fn is_cluster(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(ipv4) => ipv4.octets()[..2] == [10, self.second],
            IpAddr::V6(ipv6) => ipv6.segments()[..2] == [0xfd00, 0x96],
        }
    }

    fn domains(&self) -> Domains {
        let domain = self.domain;
        Domains {
            cluster: domain.to_owned(),
            search: vec![
                format!("shop.svc.{domain}"),
                format!("svc.{domain}"),
                domain.to_owned(),
            ],
            ndots: 5,
        }
    }
}

/// The question's name with a final dot, and where the question ends.
fn question(query: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let next = at + 1 + usize::from(query[at]);
        name.push_str(&String::from_utf8_lossy(&query[at + 1..next]).to_lowercase());
        name.push('.');
        at = next;
    }
    (name, at + 5)
}

/// Dropped before both directions have ended, it is a reset, as a stream of HTTP/2 is.
struct Resettable {
    stream: TcpStream,
    is_read: bool,
    is_shut: bool,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if !(self.is_read && self.is_shut) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before {
            self.is_read = true;
        }
        polled
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How long the tests wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

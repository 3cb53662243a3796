//! The helper as a child process: started, awaited until its setup has ended, and killed with its handle.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::timeout;

use super::inside::receive;
use crate::namespace::control::{self, Files, Ready};
use crate::namespace::error::{SetupError, Step};
use crate::namespace::hold::Hold;
use crate::namespace::word::WORD;

/// How long the setup may take. It takes some 10 ms; on a machine that is overloaded, a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running helper. Dropped, it is killed; the namespace lives on while a program is in it.
#[derive(Debug)]
pub struct HelperProcess(Child);

impl HelperProcess {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for HelperProcess {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sockets of the namespace that the engine serves.
#[derive(Debug)]
pub struct Sockets {
    /// Of the resolver.
    pub resolver: (TcpListener, UdpSocket),
    /// Transparent, of each family.
    pub captured: Vec<(TcpListener, UdpSocket)>,
    /// The queue of held SYNs.
    pub queue: Option<OwnedFd>,
}

/// A helper whose setup has succeeded.
#[derive(Debug)]
pub struct Started {
    /// Its process.
    pub process: HelperProcess,
    /// What it has set up.
    pub ready: Ready,
    /// The sockets that it handed over.
    pub sockets: Sockets,
    /// The way to ask it for more.
    pub control: UnixDatagram,
}

/// Starts the helper and waits until the namespace is there.
pub async fn start(label: &str, files: &Files) -> Result<Started, SetupError> {
    let failed = |error: io::Error| SetupError::io(Step::Helper, "process", &error);
    let (ours, theirs) = control::pair().map_err(failed)?;
    let process = spawn(label, theirs).map_err(failed)?;
    control::send(&ours, &files.encode(), &[]).map_err(failed)?;
    let control = wrap(ours).map_err(failed)?;
    let outcome = timeout(PATIENCE, receive(&control)).await;
    let (message, descriptors) = outcome
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(failed)?;
    let ready = control::decode_outcome(&message)
        .ok_or_else(|| SetupError::new(Step::Helper, "it ended during the setup", None))??;
    let sockets = sockets(ready, descriptors)
        .ok_or_else(|| SetupError::new(Step::Helper, "descriptors are missing", None))?;
    Ok(Started {
        process,
        ready,
        sockets,
        control,
    })
}

/// In a process group of its own: a Ctrl-C is for the program, which may need the network to end well.
fn spawn(label: &str, control: OwnedFd) -> io::Result<HelperProcess> {
    let child = Command::new(std::env::current_exe()?)
        .args([WORD, label])
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    Ok(HelperProcess(child))
}

/// tokio has no type for SOCK_SEQPACKET; of this one only readiness is used.
fn wrap(control: OwnedFd) -> io::Result<UnixDatagram> {
    let control = std::os::unix::net::UnixDatagram::from(control);
    control.set_nonblocking(true)?;
    UnixDatagram::from_std(control)
}

fn sockets(ready: Ready, descriptors: Vec<OwnedFd>) -> Option<Sockets> {
    let mut descriptors = descriptors.into_iter();
    let mut pair = || {
        let tcp = TcpListener::from(descriptors.next()?);
        Some((tcp, UdpSocket::from(descriptors.next()?)))
    };
    let resolver = pair()?;
    let mut captured = vec![pair()?];
    if ready.has_ipv6 {
        captured.push(pair()?);
    }
    let queue = descriptors.next();
    if queue.is_none() && ready.hold != Hold::None {
        return None;
    }
    Some(Sockets {
        resolver,
        captured,
        queue,
    })
}

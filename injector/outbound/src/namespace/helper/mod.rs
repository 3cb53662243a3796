//! The helper process: it makes the namespace, hands its sockets to the engine, and stays as the process that makes further sockets there.
//!
//! It has one thread and never executes another program, so that it keeps its capabilities in its own user namespace. It ends when the engine's end of the control socket
//! closes, even by `kill -9`. That is asked of the socket and not of the kernel (PR_SET_PDEATHSIG), which watches the thread that started a process, not its process.

mod files;
mod identity;
mod sockets;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

use self::files::Covers;
use self::sockets::Sockets;
use super::control::{self, Ready, SocketKind};
use super::error::{SetupError, Step};
use super::hold::Hold;
use super::rules::{self, Ports};
use super::word::WORD;
use super::{links, queue};

/// Is this the first argument of such a process?
pub fn is_requested(argument: Option<&OsStr>) -> bool {
    argument.is_some_and(|argument| argument == WORD)
}

/// Becomes the helper, with the control socket as standard input. Call it while the process has one thread. Returns once the engine is gone.
pub fn run() -> io::Result<()> {
    let stdin = io::stdin();
    let control = stdin.as_fd();
    let (first, _) = control::receive(control)?;
    let outcome = set_up(&control::Files::decode(&first));
    let (ready, sockets, covers) = match outcome {
        Ok(done) => done,
        Err(error) => {
            let message = control::encode_outcome(&Err(error));
            return control::send(control, message.as_bytes(), &[]);
        }
    };
    let message = control::encode_outcome(&Ok(ready));
    control::send(control, message.as_bytes(), &sockets.descriptors())?;
    // The engine's are to be the only ones: with them ends what they take.
    drop(sockets);
    serve(control, covers)
}

fn set_up(files: &control::Files) -> Result<(Ready, Sockets, Covers), SetupError> {
    identity::enter_namespaces()?;
    let has_ipv6 = sockets::has_ipv6();
    links::set_up(has_ipv6)
        .map_err(|refusal| SetupError::io(Step::Loopback, "lo", &refusal.error))?;
    let mut sockets = Sockets::open(has_ipv6)?;
    let port = sockets.port();
    let mut hold = install_rules(sockets.ports())?;
    if hold != Hold::None {
        match queue::open() {
            Ok(queue) => sockets.queue = Some(queue),
            // A queue that is not read passes everything on.
            Err(_) => hold = Hold::None,
        }
    }
    identity::open_low_ports();
    let covers = Covers::mount(files)?;
    let ready = Ready {
        hold,
        has_ipv6,
        port,
    };
    Ok((ready, sockets, covers))
}

/// The best way to hold SYNs that this kernel has. Without one, the error of the rules that every way needs.
fn install_rules(ports: Ports) -> Result<Hold, SetupError> {
    let mut error = None;
    for hold in Hold::ALL {
        match rules::install(ports, hold) {
            Ok(()) => return Ok(hold),
            Err(refusal) => error = Some(refusal),
        }
    }
    Err(match error {
        Some(refusal) => SetupError::io(Step::Rules, refusal.place, &refusal.error),
        None => SetupError::new(Step::Rules, "", None),
    })
}

/// Makes sockets on request, and covers the files again where the host has replaced them.
fn serve(control: BorrowedFd<'_>, mut covers: Covers) -> io::Result<()> {
    loop {
        let mut polled = [
            PollFd::new(&control, PollFlags::IN),
            PollFd::new(&covers, PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let [is_requested, is_changed] = polled.map(|one| !one.revents().is_empty());
        if is_changed {
            covers.repair();
        }
        if is_requested {
            let (request, _) = control::receive(control)?;
            if request.is_empty() {
                return Ok(());
            }
            answer(control, &request)?;
        }
    }
}

/// One descriptor, or the error's number.
fn answer(control: BorrowedFd<'_>, request: &[u8]) -> io::Result<()> {
    let socket = match SocketKind::decode(request) {
        Some(kind) => sockets::make(kind),
        None => Err(io::ErrorKind::InvalidInput.into()),
    };
    match socket {
        Ok(socket) => control::send(control, b"0", &[socket.as_fd()]),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(1);
            control::send(control, errno.to_string().as_bytes(), &[])
        }
    }
}

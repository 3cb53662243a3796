//! One direction of a connection between two sockets, by `splice(2)` once it is bulk: the bytes stay in the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::copy::{Progress, copy};

/// A direction is bulk from here on: most connections never get a pipe.
const BULK: usize = 1 << 20;

/// The size of a pipe: twice as fast as the default of 64 KiB.
const PIPE: usize = 1 << 20;

/// All pipes of a user share 64 MiB (fs.pipe-user-pages-soft). Beyond that the pipes of the user's other programs shrink.
const MAX_PIPES: usize = 24;

/// The pipes that bulk may use at once; what finds none is copied.
#[derive(Debug, Clone)]
pub struct Pipes(Arc<Semaphore>);

impl Default for Pipes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_PIPES)))
    }
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _permit: OwnedSemaphorePermit,
}

impl Pipes {
    fn open(&self) -> Option<Pipe> {
        let permit = self.0.clone().try_acquire_owned().ok()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one is slower, and no worse.
        let _ = fcntl_setpipe_size(&write, PIPE);
        Some(Pipe {
            read,
            write,
            _permit: permit,
        })
    }
}

/// Moves bytes until the end. An error is the sender's: a reset.
pub async fn move_bytes(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    pipes: &Pipes,
) -> io::Result<Progress> {
    match copy(&mut from, &mut to, Some(BULK)).await? {
        Progress::Open => {}
        ended => return Ok(ended),
    }
    match pipes.open() {
        Some(pipe) => move_by_pipe(from.as_ref(), to.as_ref(), &pipe).await,
        None => copy(&mut from, &mut to, None).await,
    }
}

async fn move_by_pipe(from: &TcpStream, to: &TcpStream, pipe: &Pipe) -> io::Result<Progress> {
    const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
    loop {
        let read = || Ok(splice(from, None, &pipe.write, None, PIPE, FLAGS)?);
        let mut left = from.async_io(Interest::READABLE, read).await?;
        if left == 0 {
            return Ok(match shutdown(to, Shutdown::Write) {
                Ok(()) => Progress::Ended,
                Err(_) => Progress::Broken,
            });
        }
        while left > 0 {
            let write = || Ok(splice(&pipe.read, None, to, None, left, FLAGS)?);
            match to.async_io(Interest::WRITABLE, write).await {
                Ok(length) => left -= length,
                Err(_) => return Ok(Progress::Broken),
            }
        }
    }
}

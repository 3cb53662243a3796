//! Moves the bytes of an open connection both ways, half-closes and resets included.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::TcpStream;

use super::copy::{Progress, copy};
use super::splice::{Pipes, move_bytes};

/// What a program is connected to.
#[derive(Debug)]
pub enum Upstream<S> {
    /// Something in the host's own network.
    Host(TcpStream),
    /// Something in the cluster.
    Cluster(S),
    /// The namespace's own resolver.
    Resolver,
}

/// Between two sockets of the kernel.
pub async fn transfer_plain(mut one: TcpStream, mut other: TcpStream, pipes: &Pipes) {
    // What one end writes is to reach the other at once, in pieces as they come.
    let _ = (one.set_nodelay(true), other.set_nodelay(true));
    let (one_read, one_write) = one.split();
    let (other_read, other_write) = other.split();
    let outcome = tokio::try_join!(
        move_bytes(one_read, other_write, pipes),
        move_bytes(other_read, one_write, pipes),
    );
    if is_reset(&outcome) {
        let _ = (one.set_zero_linger(), other.set_zero_linger());
    }
}

/// Between a program and any stream that needs no flush. Dropped before both directions have ended, it has to reset its other end.
pub async fn copy_both(mut program: TcpStream, cluster: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = program.set_nodelay(true);
    let (mut program_read, mut program_write) = program.split();
    let (mut cluster_read, mut cluster_write) = split(cluster);
    let outcome = tokio::try_join!(
        copy(&mut program_read, &mut cluster_write, None),
        copy(&mut cluster_read, &mut program_write, None),
    );
    if is_reset(&outcome) {
        let _ = program.set_zero_linger();
    }
}

fn is_reset(outcome: &io::Result<(Progress, Progress)>) -> bool {
    match outcome {
        Ok((one, other)) => [one, other].contains(&&Progress::Broken),
        Err(_) => true,
    }
}

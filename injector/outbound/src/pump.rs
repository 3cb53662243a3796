//! Joins a TCP connection with one into the cluster until both directions have ended, or one breaks: then the other side is reset too.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::connection::{Connection, Reader, Writer};
use crate::mark::{Mark, Marker};
use crate::settings::{CHUNK, FLUSH};

/// With less room than this a new buffer is begun.
const LEAST: usize = 4 * 1024;

/// Bytes that have passed.
#[derive(Debug, Default)]
pub struct Passed {
    /// From the connection into the cluster to the TCP connection.
    pub to_tcp: AtomicU64,
    /// From the TCP connection to the connection into the cluster.
    pub from_tcp: AtomicU64,
}

/// Passes bytes both ways. What was received before an error goes out first; then the TCP connection is reset, and so is the other one.
///
/// # Errors
/// Which side broke, and how.
pub async fn pump(tcp: TcpStream, connection: Connection, passed: &Passed) -> io::Result<()> {
    pump_marked(tcp, connection, passed, None).await
}

/// The same, with requests of the TCP connection marked.
pub(crate) async fn pump_marked(
    tcp: TcpStream,
    mut connection: Connection,
    passed: &Passed,
    mark: Option<Arc<Mark>>,
) -> io::Result<()> {
    let mut tcp = ResetOnDrop {
        tcp,
        has_ended: false,
    };
    let (read, write) = tcp.tcp.split();
    let Connection { reader, writer } = &mut connection;
    let outcome = tokio::try_join!(
        to_tcp(reader, write, &passed.to_tcp),
        from_tcp(read, writer, &passed.from_tcp, Marker::new(mark))
    );
    match outcome {
        Ok(_) => {
            tcp.has_ended = true;
            Ok(())
        }
        Err(error) => {
            let writer = &connection.writer;
            let _ = timeout(FLUSH, poll_fn(|cx| writer.poll_flushed(cx))).await;
            Err(error)
        }
    }
}

/// Resets the peer of a TCP connection whose other end cannot be told why nothing more comes.
pub(crate) fn reset(tcp: TcpStream) {
    drop(ResetOnDrop {
        tcp,
        has_ended: false,
    });
}

/// A FIN would say that all has arrived.
struct ResetOnDrop {
    tcp: TcpStream,
    has_ended: bool,
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// Takes what comes at once, up to the window: h2 counts small frames that wait, and a reset is seen while the other side does not read.
async fn to_tcp(reader: &mut Reader, mut tcp: WriteHalf<'_>, passed: &AtomicU64) -> io::Result<()> {
    let mut waiting = BytesMut::new();
    let mut is_ended = false;
    while !is_ended || !waiting.is_empty() {
        tokio::select! {
            next = poll_fn(|cx| reader.poll_next(cx)), if !is_ended => match next {
                Some(bytes) => waiting.extend_from_slice(&bytes?),
                None => is_ended = true,
            },
            written = tcp.write(&waiting), if !waiting.is_empty() => {
                let written = written?;
                waiting.advance(written);
                reader.release(written);
                passed.fetch_add(written as u64, Ordering::Relaxed);
            }
        }
    }
    tcp.shutdown().await
}

/// Room is asked for once there is something to read, and given back before the next wait.
async fn from_tcp(
    tcp: ReadHalf<'_>,
    writer: &mut Writer,
    passed: &AtomicU64,
    mut marker: Marker,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        tokio::select! {
            ready = tcp.readable() => ready?,
            error = poll_fn(|cx| writer.poll_reset(cx)) => return Err(error),
        }
        let room = poll_fn(|cx| writer.poll_capacity(cx)).await?;
        if buffer.capacity() < LEAST {
            buffer.reserve(CHUNK);
        }
        let read = tcp.try_read_buf(&mut (&mut buffer).limit(room));
        match read {
            Ok(0) => {
                let rest = marker.rest();
                if !rest.is_empty() {
                    writer.send(rest).await?;
                }
                return writer.end();
            }
            Ok(count) => {
                let bytes = marker.pass(buffer.split().freeze());
                if !bytes.is_empty() {
                    writer.send(bytes).await?;
                }
                passed.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        writer.give_back();
    }
}

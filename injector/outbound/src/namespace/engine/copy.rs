//! One direction of a connection, by a buffer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// As large as a loopback's packet, and as tokio's own copy is at its best.
const BUFFER: usize = 64 * 1024;

/// How a direction came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The sender has ended it, and the receiver has been told.
    Ended,
    /// The receiver takes no more; what it still sends may be an answer, and is worth reading.
    Broken,
    /// It goes on; as many bytes as asked for have passed.
    Open,
}

/// Copies until the end, or until `limit` bytes have passed. An error is the sender's: a reset.
pub async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    limit: Option<usize>,
) -> io::Result<Progress> {
    let mut buffer = vec![0; BUFFER];
    let mut passed = 0;
    while limit.is_none_or(|limit| passed < limit) {
        let length = from.read(&mut buffer).await?;
        let written = match length {
            0 => to.shutdown().await,
            _ => to.write_all(&buffer[..length]).await,
        };
        match (written, length) {
            (Err(_), _) => return Ok(Progress::Broken),
            (Ok(()), 0) => return Ok(Progress::Ended),
            (Ok(()), _) => passed += length,
        }
    }
    Ok(Progress::Open)
}

//! The log of an intercept in the background, printed once or for as long as it grows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use tokio::time::sleep;

use super::Detached;

/// Between two looks whether there is more.
const LOOK: Duration = Duration::from_millis(100);

/// Copies the log to `out`. With `follow`, until that process ends, and then what it said last.
pub async fn print_log(
    mut log: File,
    follow: Option<&Detached>,
    out: &mut impl Write,
) -> io::Result<()> {
    loop {
        // Asked before the rest is read: what was written before the end is in it.
        let goes_on = follow.is_some_and(Detached::is_running);
        rewind_if_emptied(&mut log)?;
        copy(&mut log, out)?;
        if !goes_on {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Seeks to the start of a log that was truncated (logrotate's `copytruncate`).
fn rewind_if_emptied(log: &mut File) -> io::Result<()> {
    if log.stream_position()? > log.metadata()?.len() {
        log.seek(SeekFrom::Start(0))?;
    }
    Ok(())
}

fn copy(log: &mut File, out: &mut impl Write) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    loop {
        match log.read(&mut piece)? {
            0 => return out.flush(),
            length => out.write_all(piece.get(..length).unwrap_or_default())?,
        }
    }
}

//! Does this machine's clock go with the API server's?

use std::time::{SystemTime, UNIX_EPOCH};

use super::Check;
use super::snapshot::Answer;

/// More than this, in seconds, is worth a word: certificates and tokens begin to fail.
const MOST: u64 = 30;

const ID: &str = "clock";

pub fn check(server: &Answer<u64>) -> Check {
    let here = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |here| here.as_secs());
    match server {
        Ok(server) => compared(*server, here),
        Err(error) => Check::unanswered(ID, "the API server's clock", error),
    }
}

/// Both in seconds since the epoch.
pub(super) fn compared(server: u64, here: u64) -> Check {
    let apart = server.abs_diff(here);
    let word = if here > server { "ahead of" } else { "behind" };
    match apart {
        0..=MOST => Check::pass(ID, "this machine's clock goes with the API server's"),
        _ => Check::warn(
            ID,
            format!(
                "this machine's clock is {apart} s {word} the API server's; leases are counted by the API server's"
            ),
            "set the clock: timedatectl set-ntp true",
        ),
    }
}

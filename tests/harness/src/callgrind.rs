//! Callgrind's counts of user instructions, which do not depend on the machine's load.

use std::path::{Path, PathBuf};

use crate::binaries;

/// The start of a command line under callgrind.
///
/// It writes its counts to `file`, or to files named after it.
pub fn command_line(file: &Path, options: &[&str]) -> Vec<PathBuf> {
    let mut words = vec![
        binaries::tool("valgrind", "valgrind"),
        "--tool=callgrind".into(),
        format!("--callgrind-out-file={}", file.display()).into(),
    ];
    words.extend(options.iter().map(PathBuf::from));
    words
}

/// The instruction total in a file of callgrind.
pub fn total(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).expect("a file of callgrind's");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.expect("a sum").trim().parse().expect("a number")
}

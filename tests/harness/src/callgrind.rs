//! Callgrind's counts of user instructions, which do not depend on the machine's load.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::binaries;

/// The counts of one program, which counts only on request.
#[derive(Debug)]
pub struct Counts(TempDir);

impl Counts {
    /// Counts of a program that is not running yet.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The start of the program's command line. It does not count at first.
    pub fn command_line(&self, options: &[&str]) -> Vec<PathBuf> {
        let options = [options, &["--instr-atstart=no"]].concat();
        command_line(&self.0.path().join("callgrind"), &options)
    }

    /// The program with this id counts from now on.
    pub fn begin(&self, id: u32) {
        tell(id, &["instrumentation", "on"]);
    }

    /// Forgets what was counted so far.
    pub fn forget(&self, id: u32) {
        tell(id, &["zero"]);
    }

    /// Stops counting, and returns the count.
    pub fn end(&self, id: u32) -> u64 {
        tell(id, &["dump"]);
        tell(id, &["instrumentation", "off"]);
        let files = std::fs::read_dir(self.0.path()).expect("callgrind's directory");
        let newest = files
            .map(|file| file.expect("a file").path())
            .filter_map(|path| Some((path.extension()?.to_str()?.parse::<u32>().ok()?, path)))
            .max();
        total(&newest.expect("a dump").1)
    }
}

/// Sends callgrind a command.
fn tell(id: u32, command: &[&str]) {
    let mut told = Command::new(binaries::tool("vgdb", "valgrind"));
    told.arg(format!("--pid={id}")).args(command);
    let output = told.output().expect("vgdb starts");
    assert!(output.status.success(), "{told:?}: {output:?}");
}

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

//! Finds the checkout to build, and its commit. Knows nothing of toolchains and modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::anyhow;

use crate::failure::{Failure, OrHint};

/// Length of an abbreviated commit, in hexadecimal digits.
const COMMIT_DIGITS: usize = 12;

/// The checkout of the project that contains the working directory.
pub fn find_checkout() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir().or_hint("change into a checkout of injector")?;
    here.ancestors()
        .find(|dir| dir.join("Cargo.lock").is_file() && dir.join("filter/Cargo.toml").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| {
            anyhow!(
                "{}: expected a checkout of injector, here or above",
                here.display()
            )
        })
        .or_hint("run it as `cargo run -p wasm-build -- build` inside the checkout")
}

/// The commit of a checkout, with `+dirty` if a tracked file differs, or `unknown` without git.
///
/// Untracked files do not count, as with `git describe --dirty`: every built file is named in files that git tracks.
pub fn commit(checkout: &Path) -> String {
    let Some(commit) = git(
        checkout,
        &["rev-parse", &format!("--short={COMMIT_DIGITS}"), "HEAD"],
    ) else {
        return "unknown".to_owned();
    };
    match git(checkout, &["status", "--porcelain", "--untracked-files=no"]).as_deref() {
        Some("") => commit,
        _ => format!("{commit}+dirty"),
    }
}

/// The trimmed output of git; `None` if it is missing or fails.
fn git(checkout: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(checkout)
        .args(args)
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run_git(dir: &Path, args: &[&str]) {
        let output = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(args)
            .output()
            .expect("git: apt-get install git");
        assert!(output.status.success(), "git {args:?}: {output:?}");
    }

    fn checkout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        run_git(dir.path(), &["init", "-q"]);
        fs::write(dir.path().join("lib.rs"), "one").unwrap();
        run_git(dir.path(), &["add", "lib.rs"]);
        run_git(
            dir.path(),
            &[
                "-c",
                "user.name=Bob",
                "-c",
                "user.email=bob@example.com",
                "commit",
                "-qm",
                "one",
            ],
        );
        dir
    }

    #[test]
    fn a_clean_checkout_is_named_by_its_commit() {
        let dir = checkout();
        let commit = commit(dir.path());
        assert_eq!(commit.len(), COMMIT_DIGITS, "{commit}");
        assert!(
            commit.chars().all(|digit| digit.is_ascii_hexdigit()),
            "{commit}"
        );
    }

    #[test]
    fn a_changed_tracked_file_makes_it_dirty() {
        let dir = checkout();
        fs::write(dir.path().join("lib.rs"), "two").unwrap();
        assert!(commit(dir.path()).ends_with("+dirty"));
    }

    #[test]
    fn an_untracked_file_does_not_make_it_dirty() {
        let dir = checkout();
        fs::write(dir.path().join("notes"), "two").unwrap();
        assert!(!commit(dir.path()).ends_with("+dirty"));
    }

    #[test]
    fn without_a_repository_the_commit_is_unknown() {
        assert_eq!(commit(tempfile::tempdir().unwrap().path()), "unknown");
    }
}

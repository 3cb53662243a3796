//! Describes this machine to `toolchain::choose`: finds compilers, their libraries, and linkers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cargo::clean_command;
use super::{Compiler, Machine, TARGET, preference};

/// The directory of Debian's compiler, which may come after rustup's in `PATH`.
const DEBIAN_BIN: &str = "/usr/bin";

/// Describes the compilers for `checkout`, and the linkers in `PATH`.
pub fn machine(checkout: &Path) -> Machine {
    let debian = Path::new(DEBIAN_BIN);
    let compilers = [
        ("rustc".into(), "cargo".into()),
        (debian.join("rustc"), debian.join("cargo")),
    ];
    Machine {
        compilers: compilers
            .into_iter()
            .filter_map(|(rustc, cargo)| compiler(checkout, rustc, cargo))
            .collect(),
        linkers: std::env::var_os("PATH")
            .map(|path| linkers(std::env::split_paths(&path)))
            .unwrap_or_default(),
    }
}

/// Describes a compiler; `None` if it does not exist or does not run.
fn compiler(checkout: &Path, rustc: PathBuf, cargo: PathBuf) -> Option<Compiler> {
    let print = |what: &[&str]| {
        let output = clean_command(&rustc)
            .current_dir(checkout)
            .arg("--print")
            .args(what)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    };
    let sysroot = print(&["sysroot"])?;
    let libraries = print(&["target-libdir", "--target", TARGET])?;
    Some(Compiler {
        has_std: has_std(&libraries),
        // Cargo needs this file to pin the dependencies of the standard library.
        has_std_source: sysroot
            .join("lib/rustlib/src/rust/library/Cargo.lock")
            .is_file(),
        rustc,
        cargo,
        sysroot,
    })
}

/// Is the library itself there?
///
/// The directory alone proves nothing, because rustup leaves it behind.
fn has_std(libraries: &Path) -> bool {
    names(libraries).any(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
}

fn linkers(dirs: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let found: BTreeSet<String> = dirs
        .flat_map(|dir| names(&dir).collect::<Vec<_>>())
        .filter(|name| preference(name).is_some())
        .collect();
    found.into_iter().collect()
}

/// The file names in a directory; none if it cannot be read.
fn names(dir: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_directory_without_std_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_std(dir.path()));
        assert!(!has_std(&dir.path().join("missing")));
        fs::write(dir.path().join("libcore-1f2e.rlib"), "").unwrap();
        assert!(!has_std(dir.path()));
        fs::write(dir.path().join("libstd-1f2e.rlib"), "").unwrap();
        assert!(has_std(dir.path()));
    }

    #[test]
    fn linkers_are_found_by_name_in_any_directory_of_the_path() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(one.path().join("wasm-ld-22"), "").unwrap();
        fs::write(one.path().join("ld"), "").unwrap();
        fs::write(two.path().join("rust-lld"), "").unwrap();
        let path = [
            one.path().to_owned(),
            two.path().to_owned(),
            "/nonexistent".into(),
        ];
        assert_eq!(linkers(path.into_iter()), ["rust-lld", "wasm-ld-22"]);
    }

    #[test]
    fn a_compiler_that_is_not_there_is_left_out() {
        assert_eq!(
            compiler(Path::new("/"), "/nonexistent/rustc".into(), "cargo".into()),
            None
        );
    }
}

//! Chooses the Rust toolchain for wasm32.
//!
//! The choice is a pure function of a described machine; `survey` describes it, `cargo` builds.

pub mod cargo;
pub mod program;
pub mod survey;

use std::path::PathBuf;

use crate::failure::{Failure, OrHint};

/// The only target: Envoy runs bare wasm32 modules, without WASI.
pub const TARGET: &str = "wasm32-unknown-unknown";

const HINT: &str = "rustup target add wasm32-unknown-unknown\n  or, on Debian: apt-get install rustc-web cargo-web rust-web-src lld-22";

/// A Rust compiler with its cargo, and its support for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// `rustc`, as a path or as a name to look up in `PATH`.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// The directory of its libraries.
    pub sysroot: PathBuf,
    /// Is the standard library for the target installed?
    pub has_std: bool,
    /// Are the sources of the standard library installed?
    pub has_std_source: bool,
}

/// The input of the choice.
#[derive(Debug, Default)]
pub struct Machine {
    /// The compilers found, the preferred one first.
    pub compilers: Vec<Compiler>,
    /// The file names of linkers that can link wasm.
    pub linkers: Vec<String>,
}

/// A compiler and the source of its standard library.
#[derive(Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// Its standard library for the target.
    pub std: Std,
}

/// The source of the standard library for the target.
#[derive(Debug, PartialEq, Eq)]
pub enum Std {
    /// Installed, with a linker beside it.
    Installed,
    /// Built with the filter, and linked by this linker.
    ///
    /// Debian has no package of the standard library for bare wasm32.
    FromSource {
        /// A file name in `PATH`.
        linker: String,
    },
}

/// No toolchain on this machine can build for the target.
#[derive(Debug, thiserror::Error)]
#[error("no Rust toolchain for {TARGET}: {}", .tried.join("; "))]
pub struct NoToolchain {
    tried: Vec<String>,
}

/// Chooses an installed standard library, else one that can be built from source.
pub fn choose(machine: &Machine) -> Result<Toolchain, Failure> {
    if let Some(compiler) = machine.compilers.iter().find(|compiler| compiler.has_std) {
        return Ok(Toolchain {
            compiler: compiler.clone(),
            std: Std::Installed,
        });
    }
    let linker = machine.linkers.iter().max_by_key(|name| preference(name));
    let compiler = machine
        .compilers
        .iter()
        .find(|compiler| compiler.has_std_source);
    match (compiler, linker) {
        (Some(compiler), Some(linker)) => Ok(Toolchain {
            compiler: compiler.clone(),
            std: Std::FromSource {
                linker: linker.clone(),
            },
        }),
        _ => Err(NoToolchain {
            tried: tried(machine),
        })
        .or_hint(HINT),
    }
}

/// The rank of a wasm linker by file name, higher is better; `None` for other files.
///
/// The newest versioned `wasm-ld` is best, because a linker must not be older than the compiler's LLVM.
fn preference(name: &str) -> Option<(u8, u32)> {
    match name {
        "rust-lld" => Some((0, 0)),
        "wasm-ld" => Some((1, 0)),
        _ => Some((2, name.strip_prefix("wasm-ld-")?.parse().ok()?)),
    }
}

fn tried(machine: &Machine) -> Vec<String> {
    if machine.compilers.is_empty() {
        return vec!["no rustc found".to_owned()];
    }
    let lacks = |compiler: &Compiler| {
        let why = if compiler.has_std_source {
            "sources of the standard library, but no wasm-ld to link it"
        } else {
            "no standard library for it"
        };
        format!("{} has {why}", compiler.rustc.display())
    };
    machine.compilers.iter().map(lacks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(rustc: &str, has_std: bool, has_std_source: bool) -> Compiler {
        Compiler {
            rustc: rustc.into(),
            cargo: "cargo".into(),
            sysroot: "/usr".into(),
            has_std,
            has_std_source,
        }
    }

    /// The chosen compiler and its linker, or the error.
    fn chosen(
        compilers: &[Compiler],
        linkers: &[&str],
    ) -> Result<(String, Option<String>), String> {
        let machine = Machine {
            compilers: compilers.to_vec(),
            linkers: linkers.iter().map(|name| (*name).to_owned()).collect(),
        };
        let toolchain =
            choose(&machine).map_err(|failure| format!("{} | {}", failure.error, failure.hint))?;
        let linker = match toolchain.std {
            Std::Installed => None,
            Std::FromSource { linker } => Some(linker),
        };
        Ok((toolchain.compiler.rustc.display().to_string(), linker))
    }

    fn with(rustc: &str, linker: Option<&str>) -> Result<(String, Option<String>), String> {
        Ok((rustc.to_owned(), linker.map(str::to_owned)))
    }

    #[test]
    fn an_installed_standard_library_wins_over_one_from_source() {
        let rustup = compiler("rustc", true, false);
        let debian = compiler("/usr/bin/rustc", false, true);
        assert_eq!(
            chosen(&[rustup, debian.clone()], &["wasm-ld-22"]),
            with("rustc", None)
        );
        let rustup = compiler("rustc", false, true);
        let debian = compiler("/usr/bin/rustc", true, true);
        assert_eq!(
            chosen(&[rustup, debian], &["wasm-ld-22"]),
            with("/usr/bin/rustc", None)
        );
    }

    #[test]
    fn without_an_installed_one_it_is_built_from_source() {
        let compilers = [
            compiler("rustc", false, false),
            compiler("/usr/bin/rustc", false, true),
        ];
        assert_eq!(
            chosen(&compilers, &["wasm-ld-22"]),
            with("/usr/bin/rustc", Some("wasm-ld-22"))
        );
    }

    #[test]
    fn the_newest_linker_is_taken() {
        let source = [compiler("rustc", false, true)];
        for (linkers, expected) in [
            (&["wasm-ld-9", "wasm-ld-22", "wasm-ld-19"][..], "wasm-ld-22"),
            (&["rust-lld", "wasm-ld"], "wasm-ld"),
            (&["wasm-ld", "wasm-ld-22"], "wasm-ld-22"),
            (&["rust-lld"], "rust-lld"),
        ] {
            assert_eq!(
                chosen(&source, linkers),
                with("rustc", Some(expected)),
                "{linkers:?}"
            );
        }
    }

    #[test]
    fn sources_without_a_linker_are_not_enough_and_the_error_says_so() {
        let error = chosen(
            &[
                compiler("rustc", false, false),
                compiler("/usr/bin/rustc", false, true),
            ],
            &[],
        )
        .unwrap_err();
        assert!(error.contains("rustc has no standard library for it; /usr/bin/rustc has sources of the standard library, but no wasm-ld"), "{error}");
    }

    #[test]
    fn where_nothing_is_installed_both_ways_to_install_are_named() {
        for compilers in [vec![], vec![compiler("rustc", false, false)]] {
            let error = chosen(&compilers, &["wasm-ld-22"]).unwrap_err();
            assert!(
                error.contains("rustup target add wasm32-unknown-unknown"),
                "{error}"
            );
            assert!(
                error.contains("apt-get install rustc-web cargo-web rust-web-src lld-22"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_names_of_wasm_linkers_have_a_preference() {
        for name in ["wasm-ld-", "wasm-ld-22.1", "wasm-opt", "ld", "ld.lld"] {
            assert_eq!(preference(name), None, "{name}");
        }
    }
}

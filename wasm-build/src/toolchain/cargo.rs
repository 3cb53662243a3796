//! Runs the inner cargo: builds the filter for wasm32 in a clean environment.
//!
//! Does not check the result.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{Std, TARGET, Toolchain};

/// The package, the cargo profile, and the resulting file.
const PACKAGE: &str = "intercept-filter";
const PROFILE: &str = "wasm";
const MODULE: &str = "intercept_filter.wasm";

/// Variable with the filter's commit, which rustc reads (`option_env!`).
const COMMIT: &str = "INJECTOR_COMMIT";

/// Variables of cargo and rustc that belong to the user, not to the outer build.
///
/// Sources of crates, and access to them.
const USERS_OWN: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Builds the filter, and returns the path of its module.
pub fn build_filter(
    checkout: &Path,
    toolchain: &Toolchain,
    commit: &str,
) -> anyhow::Result<PathBuf> {
    // A separate directory, because the outer cargo may hold the lock of `target`.
    let target_dir = checkout.join("target/wasm");
    let mut cargo = clean_command(&toolchain.compiler.cargo);
    cargo
        .current_dir(checkout)
        .args([
            "build",
            "--locked",
            "--package",
            PACKAGE,
            "--profile",
            PROFILE,
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target_dir)
        .env("RUSTC", &toolchain.compiler.rustc)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            remap_flags(&machine_dirs(checkout, toolchain)),
        )
        .env(COMMIT, commit);
    if let Std::FromSource { linker } = &toolchain.std {
        // `-Zbuild-std` is unstable, hence the bootstrap switch on a stable compiler.
        cargo
            .args(["-Zbuild-std=std,panic_abort"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    let status = cargo
        .status()
        .with_context(|| format!("run {}", toolchain.compiler.cargo.display()))?;
    if !status.success() {
        bail!("cargo could not build {PACKAGE} for {TARGET} ({status})");
    }
    Ok(target_dir.join(TARGET).join(PROFILE).join(MODULE))
}

/// A directory with a different path on every machine.
pub struct MachineDir {
    dir: PathBuf,
    /// Its replacement in the module.
    name: &'static str,
    /// The subdirectory with sources.
    sources: &'static str,
}

impl MachineDir {
    /// A path that no module may contain.
    ///
    /// Includes the sources' subdirectory: a checkout in `/src` alone would also match `rustc/library/std/src`.
    pub fn telltale(&self) -> PathBuf {
        self.dir.join(self.sources)
    }

    fn remap_flag(&self) -> String {
        format!("--remap-path-prefix={}={}", self.dir.display(), self.name)
    }
}

/// The directories of sources, which rustc would name in panic messages.
pub fn machine_dirs(checkout: &Path, toolchain: &Toolchain) -> Vec<MachineDir> {
    let rust_source = toolchain.compiler.sysroot.join("lib/rustlib/src/rust");
    let mut dirs = vec![
        MachineDir {
            dir: checkout.to_owned(),
            name: "injector",
            sources: "filter",
        },
        MachineDir {
            dir: rust_source,
            name: "rustc",
            sources: "library",
        },
    ];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(dir) = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))) {
        let registries = registries(&dir);
        dirs.push(MachineDir {
            dir,
            name: "cargo",
            sources: "registry",
        });
        dirs.extend(registries);
    }
    dirs
}

/// The directories of registries, whose names depend on the source of the crates, such as a mirror.
///
/// rustc takes the last prefix that matches, so they come after cargo's home. This also saves 0.7 kB of the module.
fn registries(cargo_home: &Path) -> Vec<MachineDir> {
    let entries = std::fs::read_dir(cargo_home.join("registry/src"));
    let entries = entries.into_iter().flatten().flatten();
    let registries = entries.map(|entry| MachineDir {
        dir: entry.path(),
        name: "cargo",
        sources: "",
    });
    registries.collect()
}

/// Joins flags by cargo's own separator, so that a path may contain blanks.
fn remap_flags(dirs: &[MachineDir]) -> String {
    dirs.iter()
        .map(MachineDir::remap_flag)
        .collect::<Vec<_>>()
        .join("\x1f")
}

/// A command without the variables that `cargo run` and rustup set for the outer build.
///
/// Compiler, flags, directories, job server.
pub fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_outer(name)) {
        command.env_remove(name);
    }
    command
}

fn is_outer(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let of_cargo = name == "CARGO" || name.starts_with("CARGO_");
    let of_rustc =
        name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS") || name.starts_with("RUSTDOC");
    let of_rustup = name == "RUSTUP_TOOLCHAIN" || name == "RUST_RECURSION_COUNT";
    of_rustc || of_rustup || (of_cargo && !USERS_OWN.iter().any(|own| name.starts_with(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_outer_build_sets_does_not_reach_the_inner_one() {
        for name in [
            "CARGO",
            "CARGO_MAKEFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_WASM_OPT_LEVEL",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "RUST_RECURSION_COUNT",
        ] {
            assert!(is_outer(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn what_is_the_users_own_does() {
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "CARGO_REGISTRIES_X_INDEX",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
            "PATH",
            "HOME",
        ] {
            assert!(!is_outer(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn sources_of_every_registry_have_one_name() {
        let home = tempfile::tempdir().expect("a folder");
        for registry in [
            "index.example.com-1949cf8c6b5b557f",
            "mirror-0123456789abcdef",
        ] {
            std::fs::create_dir_all(home.path().join("registry/src").join(registry)).expect("made");
        }
        let registries = registries(home.path());
        assert_eq!(registries.len(), 2);
        for registry in registries {
            let flag = registry.remap_flag();
            assert!(
                flag.contains("/registry/src/") && flag.ends_with("=cargo"),
                "{flag}"
            );
        }
    }

    #[test]
    fn machine_paths_are_remapped_even_with_blanks_in_them() {
        let dir = |dir: &str, name, sources| MachineDir {
            dir: dir.into(),
            name,
            sources,
        };
        let dirs = [
            dir("/my code/injector", "injector", "filter"),
            dir("/c", "cargo", "registry"),
        ];
        let flags = remap_flags(&dirs);
        assert_eq!(
            flags,
            "--remap-path-prefix=/my code/injector=injector\x1f--remap-path-prefix=/c=cargo"
        );
        assert_eq!(
            dirs.map(|dir| dir.telltale()),
            [
                Path::new("/my code/injector/filter"),
                Path::new("/c/registry")
            ]
        );
    }
}

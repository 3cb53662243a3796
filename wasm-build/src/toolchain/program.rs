//! Runs the inner cargo for a static `injector`, as an otherwise empty image needs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::cargo::clean_command;

/// The package and its program.
const PACKAGE: &str = "injector";

/// Builds the program for this machine, and returns its path.
///
/// `also`, as PACKAGE/NAME, is built with it, so that shared dependencies are compiled once.
pub fn build_static(checkout: &Path, commit: &str, also: Option<&str>) -> anyhow::Result<PathBuf> {
    let mut programs = vec![(PACKAGE, PACKAGE)];
    if let Some(also) = also {
        programs.push(
            also.split_once('/')
                .with_context(|| format!("--also-build {also}: expected PACKAGE/NAME"))?,
        );
    }
    let chosen = programs
        .iter()
        .flat_map(|(package, name)| ["--package", package, "--bin", name]);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target_dir = checkout.join("target/static");
    let status = clean_command(Path::new("cargo"))
        .current_dir(checkout)
        .args(["build", "--locked", "--release"])
        .args(chosen)
        // An explicit target keeps the flags away from build scripts and macros, which cannot be static.
        .args(["--target", &target, "--target-dir"])
        .arg(&target_dir)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\x1f-Cstrip=symbols",
        )
        .env("INJECTOR_COMMIT", commit)
        .status()
        .context("run cargo")?;
    if !status.success() {
        bail!("cargo build of a static {PACKAGE}: {status}");
    }
    Ok(target_dir.join(target).join("release").join(PACKAGE))
}

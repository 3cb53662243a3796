//! `wasm-build build`: builds the module, slims it, and checks its size.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::cli::BuildArgs;
use crate::failure::{Failure, OrHint};
use crate::image::sha256_hex;
use crate::module::{self, Provenance};
use crate::toolchain::cargo::{self, MachineDir};
use crate::toolchain::{choose, survey};
use crate::{output, source};

/// The default path of the module inside the checkout, for `build` and `image`.
pub const MODULE: &str = "target/filter.wasm";

/// Builds the module, and replaces the file only if it passes all checks.
pub fn run(args: &BuildArgs) -> Result<(), Failure> {
    let checkout = source::find_checkout()?;
    let module = build_module(&checkout)?;
    let out = args.out.clone().unwrap_or_else(|| checkout.join(MODULE));
    write_module(&module, args.budget, &out)?;
    println!("{}", out.display());
    println!(
        "size    {} bytes of at most {}",
        module.len(),
        in_kb(args.budget)
    );
    println!("sha256  {}", sha256_hex(&module));
    Ok(())
}

fn build_module(checkout: &Path) -> Result<Vec<u8>, Failure> {
    let toolchain = choose(&survey::machine(checkout))?;
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: source::commit(checkout),
    };
    let built = cargo::build_filter(checkout, &toolchain, &provenance.commit)
        .or_hint("cargo's own message is above")?;
    let built = fs::read(&built)
        .with_context(|| format!("read {}", built.display()))
        .or_hint("is the package's library still called intercept_filter?")?;
    let module = module::slim(&built, &provenance)
        .or_hint("look at what the filter's last change exports, imports or depends on")?;
    let telltales: Vec<PathBuf> = cargo::machine_dirs(checkout, &toolchain)
        .iter()
        .map(MachineDir::telltale)
        .collect();
    module::check_paths(&module, telltales.iter().map(PathBuf::as_path))
        .or_hint("remap it with --remap-path-prefix, as wasm-build does for the checkout, cargo's home and rustc's sources")?;
    Ok(module)
}

fn write_module(module: &[u8], budget: u64, out: &Path) -> Result<(), Failure> {
    check_budget(module.len() as u64, budget, out)?;
    output::replace_file(out, module)
        .with_context(|| format!("write {}", out.display()))
        .or_hint("choose another place with --out")
}

fn check_budget(size: u64, budget: u64, out: &Path) -> Result<(), Failure> {
    if size <= budget {
        return Ok(());
    }
    Err(anyhow!("filter.wasm weighs {size} bytes, {} over its budget of {}; {} is as it was", size - budget, in_kb(budget), out.display()))
        .or_hint("every sidecar compiles all of it at start: look for a new dependency or generic code (cargo tree -p intercept-filter), or pass --budget BYTES")
}

fn in_kb(bytes: u64) -> String {
    format!(
        "{bytes} bytes ({} kB, a kB being 1000 bytes)",
        bytes as f64 / 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::BUDGET;

    #[test]
    fn a_module_may_use_its_whole_budget() {
        assert!(check_budget(BUDGET, BUDGET, Path::new(MODULE)).is_ok());
    }

    #[test]
    fn one_byte_over_the_budget_is_too_much_and_the_error_says_by_how_much() {
        let failure = check_budget(BUDGET + 1, BUDGET, Path::new(MODULE)).unwrap_err();
        let expected = "filter.wasm weighs 224001 bytes, 1 over its budget of 224000 bytes (224 kB, a kB being 1000 bytes); target/filter.wasm is as it was";
        assert_eq!(failure.error.to_string(), expected);
        assert!(failure.hint.contains("--budget"));
    }

    #[test]
    fn a_module_over_the_budget_does_not_replace_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("filter.wasm");
        write_module(b"old", 4, &out).unwrap();
        write_module(b"heavy", 4, &out).unwrap_err();
        assert_eq!(fs::read(&out).unwrap(), b"old");
        write_module(b"new", 4, &out).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"new");
    }
}

//! `wasm-build image`: turns an existing module into an image layout.

use std::fs;

use anyhow::{Context, anyhow};

use super::build::MODULE;
use crate::cli::ImageArgs;
use crate::failure::{Failure, OrHint};
use crate::image::{self, Image, Tag, layout, sha256_hex};
use crate::module::Provenance;
use crate::toolchain::program;
use crate::{module, output, source};

/// The default path of the layout inside the checkout.
const LAYOUT: &str = "target/filter-image";

/// The default path of the layout of relay and module server inside the checkout.
const RELAY_LAYOUT: &str = "target/relay-image";

/// The command that builds a module of the checkout's commit.
const REBUILD: &str = "cargo run -p wasm-build -- build";

/// Suffix of a commit with uncommitted changes.
const DIRTY: &[u8] = b"+dirty";

/// Checks the module, and replaces the layout.
pub fn run(args: &ImageArgs) -> Result<(), Failure> {
    let in_checkout = |path: &str| source::find_checkout().map(|checkout| checkout.join(path));
    let path = args
        .module
        .clone()
        .map_or_else(|| in_checkout(MODULE), Ok)?;
    let layout = if args.relay { RELAY_LAYOUT } else { LAYOUT };
    let out = args.out.clone().map_or_else(|| in_checkout(layout), Ok)?;
    let module = fs::read(&path)
        .with_context(|| format!("read {}", path.display()))
        .or_hint(REBUILD)?;
    let provenance = module::inspect(&module)
        .with_context(|| path.display().to_string())
        .or_hint(REBUILD)?;
    let tag = args
        .tag
        .clone()
        .map_or_else(|| provenance.version.parse::<Tag>(), Ok)
        .or_hint("name the image with --tag")?;
    let image = if args.relay {
        relay(args, &module, &provenance)?
    } else {
        image::filter::image(&module, &provenance)
            .context("pack the module")
            .or_hint("is there enough memory?")?
    };
    let digest = output::replace_dir(&out, layout::is_layout, |dir| {
        layout::write_layout(dir, &image, &tag)
    })
    .with_context(|| format!("write {}", out.display()))
    .or_hint("choose another place with --out, one that is empty or holds an image layout")?;
    println!("{}:{tag}", out.display());
    println!("image   {digest}");
    println!("module  sha256:{}", sha256_hex(&module));
    Ok(())
}

fn relay(args: &ImageArgs, module: &[u8], provenance: &Provenance) -> Result<Image, Failure> {
    let built = match &args.program {
        Some(path) => path.clone(),
        None => {
            let checkout = source::find_checkout()?;
            let commit = source::commit(&checkout);
            same_commit(provenance, &commit)?;
            program::build_static(&checkout, &commit, args.also_build.as_deref())
                .or_hint("cargo's own message is above")?
        }
    };
    let bytes = fs::read(&built)
        .with_context(|| format!("read {}", built.display()))
        .or_hint("leave --program out to have it built")?;
    let image = image::relay::image(&bytes, module, provenance)
        .with_context(|| built.display().to_string())
        .or_hint(build_program(&provenance.commit))?;
    if names_commit(&bytes, &provenance.commit) {
        return Ok(image);
    }
    Err(anyhow!(
        "{}: filter.wasm is of commit {}, which this program does not name as its own",
        built.display(),
        provenance.commit
    ))
    .or_hint(build_program(&provenance.commit))
}

/// The command that builds a program for a filter of this commit.
fn build_program(commit: &str) -> String {
    format!(
        "INJECTOR_COMMIT={commit} RUSTFLAGS='-C target-feature=+crt-static' cargo build --release -p injector --target {}-unknown-linux-gnu",
        std::env::consts::ARCH
    )
}

/// Checks that filter and relay are of one commit.
///
/// The protocol detects a mismatch by versions, which are the same for all commits between two releases.
fn same_commit(module: &Provenance, commit: &str) -> Result<(), Failure> {
    if module.commit == commit {
        return Ok(());
    }
    Err(anyhow!(
        "filter.wasm is of commit {}, the program would be of {commit}",
        module.commit
    ))
    .or_hint(REBUILD)
}

/// Does `injector --version` print this commit?
///
/// Searches the file instead of running it: the program may be for another machine.
fn names_commit(program: &[u8], commit: &str) -> bool {
    let commit = commit.as_bytes();
    program
        .windows(commit.len())
        .enumerate()
        .any(|(at, text)| text == commit && !program[at + text.len()..].starts_with(DIRTY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_commit() {
        for (program, commit, expected) in [
            ("0123456789ab", "0123456789ab", true),
            ("x0123456789aby", "0123456789ab", true),
            ("0123456789ac", "0123456789ab", false),
            ("0123456789ab+dirty", "0123456789ab", false),
            ("0123456789ab+dirty", "0123456789ab+dirty", true),
            ("0123456789ab", "0123456789ab+dirty", false),
            ("0123456789ab+dirty 0123456789ab", "0123456789ab", true),
            ("", "0123456789ab", false),
        ] {
            assert_eq!(
                names_commit(program.as_bytes(), commit),
                expected,
                "{program} {commit}"
            );
        }
    }
}

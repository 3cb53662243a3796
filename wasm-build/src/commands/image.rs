//! `wasm-build image`: a module that was built before, as an image layout.

use std::fs;

use anyhow::Context;

use super::build::MODULE;
use crate::cli::ImageArgs;
use crate::failure::{Failure, OrHint};
use crate::image::{self, Image, Tag, sha256_hex};
use crate::module::Provenance;
use crate::toolchain::program;
use crate::{module, output, source};

/// Where the layout goes, inside the checkout.
const LAYOUT: &str = "target/filter-image";

/// Where the layout of relay and module server goes, inside the checkout.
const RELAY_LAYOUT: &str = "target/relay-image";

/// Checks the module, and replaces the layout.
pub fn run(args: &ImageArgs) -> Result<(), Failure> {
    let in_checkout = |path: &str| source::find_checkout().map(|checkout| checkout.join(path));
    let path = args
        .module
        .clone()
        .map_or_else(|| in_checkout(MODULE), Ok)?;
    let layout = if args.relay { RELAY_LAYOUT } else { LAYOUT };
    let out = args.out.clone().map_or_else(|| in_checkout(layout), Ok)?;
    let rebuild = "cargo run -p wasm-build -- build";
    let module = fs::read(&path)
        .with_context(|| format!("read {}", path.display()))
        .or_hint(rebuild)?;
    let provenance = module::inspect(&module)
        .with_context(|| path.display().to_string())
        .or_hint(rebuild)?;
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
    let digest = output::replace_dir(&out, image::is_layout, |dir| {
        image::write_layout(dir, &image, &tag)
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
            program::build_static(&checkout, &commit, args.also_build.as_deref())
                .or_hint("cargo's own message is above")?
        }
    };
    let bytes = fs::read(&built)
        .with_context(|| format!("read {}", built.display()))
        .or_hint("leave --program out to have it built")?;
    image::relay::image(&bytes, module, provenance)
        .with_context(|| built.display().to_string())
        .or_hint("RUSTFLAGS='-C target-feature=+crt-static' cargo build --release -p injector --target x86_64-unknown-linux-gnu")
}

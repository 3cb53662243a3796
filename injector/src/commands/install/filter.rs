//! Which filter workloads in a cluster are prepared with, as `--module` and `--module-url` say: where sidecars fetch it, and the digest that is pinned.

use std::path::Path;

use intercept_manifest::digest::sha256;
use intercept_manifest::istio::Module;

use crate::error::{CliError, OrHint, Result};
use crate::install::plan::Filter;

/// Reads the file only.
pub fn filter(module: Option<&Path>, url: Option<&str>) -> Result<Filter> {
    let Some(url) = url else {
        let sha256 = module.map(digest).transpose()?;
        return Ok(Filter::Ours { sha256 });
    };
    let sha256 = match (url.split_once("://"), module) {
        (Some(("http" | "https", _)), Some(file)) => digest(file)?,
        (Some(("http" | "https", _)), None) => {
            return Err(CliError::usage(
                format!("--module-url {url}: its digest is pinned, so the file must be at hand"),
                "add --module filter.wasm, the file that is served there",
            ));
        }
        (Some(("oci", image)), None) => image_digest(url, image)?,
        (Some(("oci", _)), Some(_)) => {
            return Err(CliError::usage(
                format!(
                    "--module: not with --module-url {url}: an image is pinned by its own digest, not by its module's"
                ),
                IMAGE,
            ));
        }
        _ => {
            return Err(CliError::usage(
                format!("--module-url {url}: expected http://, https:// or oci://"),
                IMAGE,
            ));
        }
    };
    Ok(Filter::Elsewhere(Module {
        url: url.to_owned(),
        sha256,
    }))
}

const IMAGE: &str = "--module-url oci://registry.example.com/injector/filter@sha256:… (the line `image` of `wasm-build image`)";

fn digest(path: &Path) -> Result<String> {
    let what = format!("--module {}", path.display());
    let bytes =
        std::fs::read(path).or_hint(&what, "make build, then --module target/filter.wasm")?;
    match bytes.starts_with(b"\0asm") {
        true => Ok(sha256(&bytes)),
        false => Err(CliError::failed(
            format!("{what}: not a WebAssembly module"),
            "--module target/filter.wasm",
        )),
    }
}

/// Of an image, Istio compares the manifest's digest, not the module's (`pkg/wasm/cache.go`); with the wrong one every sidecar refuses the filter.
fn image_digest(url: &str, image: &str) -> Result<String> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digest = image
        .split_once("@sha256:")
        .filter(|(name, hex)| !name.is_empty() && hex.len() == 64 && hex.bytes().all(is_hex));
    digest.map(|(_, hex)| hex.to_owned()).ok_or_else(|| {
        CliError::usage(
            format!("--module-url {url}: expected the image's digest at its end, @sha256:… with 64 hexadecimal digits"),
            IMAGE,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere(url: &str, sha256: &str) -> Filter {
        Filter::Elsewhere(Module {
            url: url.to_owned(),
            sha256: sha256.to_owned(),
        })
    }

    #[test]
    fn what_is_pinned_is_what_istio_compares() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("filter.wasm");
        let bytes = b"\0asm\x01\0\0\0";
        std::fs::write(&file, bytes).unwrap();
        let of_file = sha256(bytes);
        assert_eq!(filter(None, None).unwrap(), Filter::Ours { sha256: None });
        assert_eq!(
            filter(Some(&file), None).unwrap(),
            Filter::Ours {
                sha256: Some(of_file.clone())
            }
        );
        for url in ["http://files/filter.wasm", "https://files/filter.wasm"] {
            let filter = filter(Some(&file), Some(url)).unwrap();
            assert_eq!(filter, elsewhere(url, &of_file));
        }
        let digest = "ab".repeat(32);
        for name in ["r/f", "r:5000/f:1"] {
            let url = format!("oci://{name}@sha256:{digest}");
            let filter = filter(None, Some(&url)).unwrap();
            assert_eq!(filter, elsewhere(&url, &digest));
        }
    }

    #[test]
    fn an_image_without_a_whole_digest_is_refused() {
        let digest = "ab".repeat(32);
        for image in [
            "r/f:1".to_owned(),
            format!("@sha256:{digest}"),
            format!("r/f@sha256:{}", &digest[1..]),
            format!("r/f@sha256:{digest}0"),
            format!("r/f@sha256:{}", digest.to_uppercase()),
            format!("r/f@sha512:{digest}"),
        ] {
            let error = filter(None, Some(&format!("oci://{image}"))).unwrap_err();
            assert!(
                error.error().contains("expected the image's digest"),
                "{error}"
            );
        }
    }
}

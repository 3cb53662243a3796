//! The filter as an image for Istio's agent: the *compat* variant of the Wasm image specification.
//!
//! Its last layer is a gzipped tar with `plugin.wasm`. The other variant has its own media types, which older registries reject, and Istio expects two layers in it.
//! <https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md>

use std::io;

use oci_spec::image::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_SOURCE,
    ANNOTATION_TITLE, ANNOTATION_VERSION, Arch, ImageConfiguration, ImageConfigurationBuilder, Os,
    RootFsBuilder,
};

use super::{File, Image, Layer};
use crate::module::Provenance;

/// The file that Istio's agent looks for.
const PLUGIN: &str = "plugin.wasm";

/// Annotation that distinguishes this variant from the one with its own media types.
const VARIANT: (&str, &str) = ("module.wasm.image/variant", "compat");

/// The image of a module.
pub fn image(module: &[u8], provenance: &Provenance) -> io::Result<Image> {
    let layer = Layer::pack(&[File {
        path: PLUGIN,
        mode: 0o644,
        bytes: module,
    }])?;
    Ok(Image {
        config: config(&layer)?,
        layers: vec![layer],
        annotations: annotations(provenance),
    })
}

/// The image configuration, with the platform `linux/amd64`, as from `docker build`.
///
/// A module runs anywhere, and Istio ignores the platform. But tools that check it before they copy an image will copy this one.
fn config(layer: &Layer) -> io::Result<ImageConfiguration> {
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids([layer.diff_id.clone()])
        .build()
        .map_err(io::Error::other)?;
    ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .rootfs(rootfs)
        .build()
        .map_err(io::Error::other)
}

fn annotations(provenance: &Provenance) -> Vec<(String, String)> {
    let all = [
        (VARIANT.0, VARIANT.1),
        (ANNOTATION_TITLE, "injector filter"),
        (
            ANNOTATION_DESCRIPTION,
            "Personal intercepts in a service mesh: the proxy-wasm filter",
        ),
        (ANNOTATION_VERSION, &provenance.version),
        (ANNOTATION_REVISION, &provenance.commit),
        (ANNOTATION_SOURCE, env!("CARGO_PKG_REPOSITORY")),
        (ANNOTATION_LICENSES, env!("CARGO_PKG_LICENSE")),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::module::tests::provenance;

    #[test]
    fn the_image_is_the_compat_variant() {
        let image = image(b"\0asm", &provenance()).unwrap();
        assert_eq!(image.layers.len(), 1);
        assert_eq!(
            image.layers[0].blob.media_type.to_string(),
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert!(
            image
                .annotations
                .contains(&(VARIANT.0.to_owned(), VARIANT.1.to_owned()))
        );
    }

    #[test]
    fn the_annotations_say_what_it_is_and_where_it_comes_from() {
        let annotations: BTreeMap<_, _> = annotations(&provenance()).into_iter().collect();
        for (key, expected) in [
            ("title", "injector filter"),
            ("version", "1.2.3"),
            ("revision", "0123456789ab"),
            ("licenses", "Apache-2.0"),
        ] {
            assert_eq!(
                annotations[&format!("org.opencontainers.image.{key}")],
                expected
            );
        }
        assert!(
            annotations.values().all(|value| !value.is_empty()),
            "{annotations:?}"
        );
    }
}

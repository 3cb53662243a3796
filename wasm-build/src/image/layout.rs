//! Writes an image as an OCI image layout: a directory of blobs named by digest, with an index.
//!
//! Knows nothing of the contents.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use oci_spec::image::{
    ANNOTATION_REF_NAME, Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;

use super::blob::{Blob, sha256_hex};
use super::{Image, Tag};

/// The file that marks a directory as a layout.
const MARKER: &str = "oci-layout";

/// Is this directory an image layout, or empty?
pub fn is_layout(dir: &Path) -> bool {
    dir.join(MARKER).is_file()
        || fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Writes an image into an empty directory.
///
/// Returns the digest of its manifest, `sha256:…`, which identifies the image in a registry.
pub fn write_layout(dir: &Path, image: &Image, tag: &Tag) -> io::Result<String> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let config = Blob {
        media_type: MediaType::ImageConfig,
        bytes: json(&image.config)?,
    };
    let manifest = Blob {
        media_type: MediaType::ImageManifest,
        bytes: json(&manifest(image, &config)?)?,
    };
    for blob in image
        .layers
        .iter()
        .map(|layer| &layer.blob)
        .chain([&config, &manifest])
    {
        fs::write(blobs.join(sha256_hex(&blob.bytes)), &blob.bytes)?;
    }
    let layout = OciLayoutBuilder::default()
        .image_layout_version("1.0.0")
        .build()
        .map_err(io::Error::other)?;
    fs::write(dir.join(MARKER), json(&layout)?)?;
    let manifest = descriptor(&manifest)?;
    let digest = manifest.digest().to_string();
    fs::write(dir.join("index.json"), json(&index(manifest, tag)?)?)?;
    Ok(digest)
}

fn manifest(image: &Image, config: &Blob) -> io::Result<ImageManifest> {
    let layers = image
        .layers
        .iter()
        .map(|layer| descriptor(&layer.blob))
        .collect::<io::Result<Vec<_>>>()?;
    ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(config)?)
        .layers(layers)
        .annotations(image.annotations.iter().cloned().collect::<HashMap<_, _>>())
        .build()
        .map_err(io::Error::other)
}

fn index(mut manifest: Descriptor, tag: &Tag) -> io::Result<ImageIndex> {
    manifest.set_annotations(Some(HashMap::from([(
        ANNOTATION_REF_NAME.to_owned(),
        tag.to_string(),
    )])));
    ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests([manifest])
        .build()
        .map_err(io::Error::other)
}

fn descriptor(blob: &Blob) -> io::Result<Descriptor> {
    let digest: Sha256Digest = sha256_hex(&blob.bytes).parse().map_err(io::Error::other)?;
    Ok(Descriptor::new(
        blob.media_type.clone(),
        blob.bytes.len() as u64,
        digest,
    ))
}

/// Serializes with sorted keys.
///
/// oci-spec keeps annotations in hash maps, whose order differs from run to run.
fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut value = serde_json::to_value(value)?;
    value.sort_all_objects();
    Ok(serde_json::to_vec(&value)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oci_spec::image::{ImageConfiguration, OciLayout};

    use super::super::filter;
    use super::*;
    use crate::module::tests::{provenance, shippable};

    fn written() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let image = filter::image(&shippable(), &provenance()).unwrap();
        let digest = write_layout(dir.path(), &image, &"1.2.3".parse().unwrap()).unwrap();
        (dir, digest)
    }

    fn blob(dir: &Path, descriptor: &Descriptor) -> Vec<u8> {
        let bytes = fs::read(
            dir.join("blobs/sha256")
                .join(descriptor.as_digest_sha256().unwrap()),
        )
        .unwrap();
        assert_eq!(descriptor.size(), bytes.len() as u64, "{descriptor:?}");
        assert_eq!(
            descriptor.as_digest_sha256(),
            Some(sha256_hex(&bytes).as_str())
        );
        bytes
    }

    fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let blobs = fs::read_dir(dir.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let all = blobs.chain([dir.join("index.json"), dir.join(MARKER)]);
        all.map(|path| {
            (
                path.strip_prefix(dir).unwrap().display().to_string(),
                fs::read(&path).unwrap(),
            )
        })
        .collect()
    }

    #[test]
    fn every_digest_and_size_from_the_index_down_is_right() {
        let (dir, digest) = written();
        OciLayout::from_file(dir.path().join(MARKER)).unwrap();
        let index = ImageIndex::from_file(dir.path().join("index.json")).unwrap();
        let [entry] = &index.manifests()[..] else {
            panic!("{index:?}")
        };
        assert_eq!(entry.digest().to_string(), digest);
        assert_eq!(
            entry.annotations().as_ref().unwrap()[ANNOTATION_REF_NAME],
            "1.2.3"
        );
        let manifest = ImageManifest::from_reader(&blob(dir.path(), entry)[..]).unwrap();
        let config =
            ImageConfiguration::from_reader(&blob(dir.path(), manifest.config())[..]).unwrap();
        assert_eq!(manifest.layers().len(), config.rootfs().diff_ids().len());
        for layer in manifest.layers() {
            blob(dir.path(), layer);
        }
        assert_eq!(
            files(dir.path()).len(),
            2 + 2 + manifest.layers().len(),
            "a blob that nothing refers to"
        );
    }

    #[test]
    fn the_same_module_gives_the_same_layout_byte_for_byte() {
        let (first, _) = written();
        // A hash map of ten annotations keeps its order by chance once in millions of runs.
        for _ in 0..4 {
            assert_eq!(files(written().0.path()), files(first.path()));
        }
    }

    #[test]
    fn a_layout_is_told_from_other_directories() {
        let (dir, _) = written();
        assert!(is_layout(dir.path()));
        let other = tempfile::tempdir().unwrap();
        assert!(is_layout(other.path()), "an empty one may be filled");
        fs::write(other.path().join("thesis"), "").unwrap();
        assert!(!is_layout(other.path()));
        assert!(!is_layout(&other.path().join("thesis")));
    }
}

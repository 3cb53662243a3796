//! Packs files as a layer: a gzipped tar that depends only on their names, modes and bytes.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use oci_spec::image::MediaType;
use tar::{EntryType, Header};

use super::blob::{Blob, sha256_hex};

/// "Unknown" in RFC 1952. The real value would be the builder's system.
const GZIP_ANY_OS: u8 = 255;

/// A file to be packed.
#[derive(Debug)]
pub struct File<'a> {
    /// The path in the image, without a leading slash.
    pub path: &'a str,
    /// The permission bits.
    pub mode: u32,
    /// The contents.
    pub bytes: &'a [u8],
}

/// A packed layer.
#[derive(Debug)]
pub struct Layer {
    pub(super) blob: Blob,
    /// The digest of the uncompressed layer.
    pub(super) diff_id: String,
}

impl Layer {
    /// Packs files in this order, owned by root and dated 1970.
    pub fn pack(files: &[File]) -> io::Result<Self> {
        let tar = tar(files)?;
        let bytes = gzip(&tar)?;
        Ok(Self {
            blob: Blob {
                media_type: MediaType::ImageLayerGzip,
                bytes,
            },
            diff_id: format!("sha256:{}", sha256_hex(&tar)),
        })
    }
}

fn tar(files: &[File]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(file.bytes.len() as u64);
        tar.append_data(&mut header, file.path, file.bytes)?;
    }
    tar.into_inner()
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(GZIP_ANY_OS)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_layer_holds_nothing_of_who_packed_it_and_when() {
        let layer = Layer::pack(&[File {
            path: "plugin.wasm",
            mode: 0o644,
            bytes: b"\0asm",
        }])
        .unwrap();
        let gzip = GzDecoder::new(&layer.blob.bytes[..]);
        let header = gzip.header().unwrap();
        assert_eq!(
            (header.mtime(), header.operating_system(), header.filename()),
            (0, GZIP_ANY_OS, None)
        );

        let mut archive = tar::Archive::new(gzip);
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        let header = entry.header().clone();
        assert_eq!(entry.path().unwrap().to_str(), Some("plugin.wasm"));
        assert_eq!(
            (
                header.mtime().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mode().unwrap()
            ),
            (0, 0, 0, 0o644)
        );
        assert_eq!(
            (header.username().unwrap(), header.groupname().unwrap()),
            (Some(""), Some(""))
        );
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"\0asm");
        assert!(entries.next().is_none());
    }

    #[test]
    fn the_diff_id_is_the_digest_of_the_uncompressed_layer() {
        let layer = Layer::pack(&[File {
            path: "a",
            mode: 0o755,
            bytes: b"a",
        }])
        .unwrap();
        let mut tar = Vec::new();
        GzDecoder::new(&layer.blob.bytes[..])
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(layer.diff_id, format!("sha256:{}", sha256_hex(&tar)));
    }
}

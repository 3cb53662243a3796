//! Blobs, the parts of a layout: bytes with a media type, named by digest.

use oci_spec::image::MediaType;
use sha2::{Digest, Sha256};

/// A blob with its media type.
#[derive(Debug)]
pub struct Blob {
    pub media_type: MediaType,
    pub bytes: Vec<u8>,
}

/// The SHA-256 as lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_what_the_standard_says() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

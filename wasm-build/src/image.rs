//! OCI images that are reproducible byte for byte.
//!
//! Without times, users, or the order of a hash map.
//!
//! `filter` and `relay` define contents, `layer` packs files, `layout` writes the result. Pushing is left to skopeo or crane.

mod blob;
pub mod filter;
mod layer;
pub mod layout;
pub mod relay;

use std::fmt;
use std::str::FromStr;

use oci_spec::image::ImageConfiguration;

pub use blob::sha256_hex;
pub use layer::{File, Layer};

/// An image: the contents of a layout, without names and digests.
#[derive(Debug)]
pub struct Image {
    /// The configuration for a container runtime; it names the layers.
    pub config: ImageConfiguration,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The annotations of the manifest, sorted by key.
    pub annotations: Vec<(String, String)>,
}

/// The tag of an image, as the distribution specification defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// The text is not a valid tag.
#[derive(Debug, Clone, thiserror::Error)]
#[error("expected a letter, digit or underscore, then at most 127 more of these, dots and dashes")]
pub struct InvalidTag;

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match text.as_bytes() {
            [first, rest @ ..]
                if is_word(*first)
                    && rest.len() <= 127
                    && rest
                        .iter()
                        .all(|byte| is_word(*byte) || b".-".contains(byte)) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidTag),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_a_registry_takes() {
        for tag in ["1", "0.1.0", "v1.2.3-rc.1", "_x", &"a".repeat(128)] {
            assert_eq!(
                tag.parse::<Tag>()
                    .map(|tag| tag.to_string())
                    .ok()
                    .as_deref(),
                Some(tag)
            );
        }
        for tag in [
            "",
            ".1",
            "-1",
            "a/b",
            "a:b",
            "1.0+dirty",
            "ä",
            &"a".repeat(129),
        ] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }
}

//! SHA-256 as text.

use sha2::{Digest, Sha256};

/// The SHA-256 of some bytes in lower-case hexadecimal digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The first 16 of these digits: enough to tell names apart.
pub fn fingerprint(bytes: impl AsRef<[u8]>) -> String {
    let mut digits = sha256(bytes);
    digits.truncate(16);
    digits
}

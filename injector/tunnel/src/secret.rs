//! The secret that proves the right to a tunnel, and the public address derived from it.
//! Knows nothing of where either is stored.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// 256 random bits known only to the developer machine.
///
/// Opening a tunnel needs the secret itself; `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// The public name of a tunnel at the relay.
///
/// The first 32 hexadecimal digits of the SHA-256 of its secret.
///
/// It is in the filter's configuration; knowing it grants nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(String);

/// The text is not a secret. The error does not repeat it: it may be a secret with a typo.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("tunnel secret: expected 64 hexadecimal digits, found {found} characters or other ones")]
pub struct InvalidSecret {
    found: usize,
}

impl Secret {
    /// Generates a secret from the operating system's random numbers.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The tunnel's public name.
    pub fn address(&self) -> Address {
        Address(hex(&Sha256::digest(self.0))[..32].to_owned())
    }

    /// The secret as 64 hexadecimal digits.
    ///
    /// For the relay's control port, and for a file that only the developer can read.
    pub fn expose(&self) -> String {
        hex(&self.0)
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = InvalidSecret {
            found: text.chars().count(),
        };
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits =
                std::str::from_utf8(digits).map_err(|_| InvalidSecret { found: text.len() })?;
            *byte =
                u8::from_str_radix(digits, 16).map_err(|_| InvalidSecret { found: text.len() })?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(masked)")
    }
}

impl Address {
    /// The name as the filter writes it: 32 lower-case hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses an address; `None` for anything but 32 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        (text.len() == 32 && text.iter().all(is_digit))
            .then(|| Self(String::from_utf8_lossy(text).into_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_hash_of_secret() {
        let secret: Secret = "00".repeat(32).parse().unwrap();
        // printf '\0%.0s' {1..32} | sha256sum
        assert_eq!(
            secret.address().as_str(),
            "66687aadf862bd776c8fc18b8e9f8e20"
        );
    }

    #[test]
    fn a_secret_survives_being_written_and_read() {
        let secret = Secret::random();
        assert_eq!(secret.expose().parse::<Secret>().unwrap(), secret);
        assert_ne!(secret, Secret::random());
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let secret = Secret::random();
        assert!(!format!("{secret:?}").contains(&secret.expose()[..8]));
    }

    #[test]
    fn invalid_secret_is_not_repeated() {
        for text in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
            let error = text.parse::<Secret>().unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn address_is_32_lower_case_digits() {
        assert!(Address::parse(b"66687aadf862bd776c8fc18b8e9f8e20").is_some());
        assert!(Address::parse(b"66687AADF862BD776C8FC18B8E9F8E20").is_none());
        assert!(Address::parse(b"66687aadf862bd776c8fc18b8e9f8e2").is_none());
        assert!(Address::parse(b"../687aadf862bd776c8fc18b8e9f8e20").is_none());
    }
}

//! The filter's configuration as written.
//!
//! JSON, the intercepts of one workload by name, as a map or as a text that contains the map.
//! Knows only the structure: `matcher` knows what an entry means, and `limits` what it may contain.

use std::collections::BTreeMap;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::interner::Interner;
use crate::invalid::InvalidIntercept;

/// The schema in which `intercepts` is a map.
///
/// An unknown version is rejected as a whole: guessing its meaning could misroute a request.
pub const SCHEMA_VERSION: u64 = 1;

/// The schema in which `intercepts` is a JSON text of that map.
///
/// The API server tracks owners of every field of a map: with 1 000 entries it took 0.4 to 2.1 s per change, and 69 to 176 ms with one text (measured).
pub const TEXT_SCHEMA_VERSION: u64 = 2;

/// Both versions as written.
const VERSION: &str = "1";
const TEXT_VERSION: &str = "2";

/// The whole document as the CLI writes it.
///
/// The filter reads it with [`parse`], which is more lenient than this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Always [`SCHEMA_VERSION`].
    pub version: u64,
    /// What the operator allows.
    #[serde(default)]
    pub limits: Limits,
    /// The intercepts of one workload, by name.
    #[serde(default)]
    pub intercepts: BTreeMap<String, Intercept>,
}

/// The operator's limits on a workload. The installer owns them; the filter and the CLI check them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whether an intercept may have neither header nor baggage conditions.
    pub allow_all: bool,
    /// The longest remaining time of a lease, in seconds.
    pub max_lease_seconds: u64,
    /// The header names that conditions may use, in any case; `None`: every name.
    ///
    /// A baggage condition uses the header `baggage`.
    pub header_names: Option<Vec<String>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allow_all: false,
            max_lease_seconds: 86_400,
            header_names: None,
        }
    }
}

/// One intercept: conditions and destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intercept {
    /// The port whose requests it may match: the container's, or the listener's in a plain Envoy.
    pub port: u16,
    /// The Envoy cluster for matching requests; begins with `intercept|`.
    pub cluster: String,
    /// The tunnel's public name at the relay: 32 lower-case hexadecimal digits.
    pub address: String,
    /// The owner. Informational.
    pub owner: String,
    /// The creation time, in seconds since the epoch. Informational.
    pub created: u64,
    /// Header conditions; all must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<MatchHeader>,
    /// Baggage conditions; all must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baggage: Vec<MatchBaggage>,
    /// The path condition, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<MatchPath>,
    /// The expiry of the lease, in seconds since the epoch.
    ///
    /// From then on the intercept matches no request.
    pub expires: u64,
}

/// A header condition: the regex matches a whole value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchHeader {
    /// An RFC 9110 token in any case, or a pseudo-header such as `:method`.
    pub name: String,
    /// The regex.
    pub value: String,
}

/// A condition on a member of the W3C `baggage` header: the regex matches the whole value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchBaggage {
    /// The member's key, an RFC 9110 token; case-sensitive.
    pub key: String,
    /// The regex for the percent-decoded value.
    pub value: String,
}

/// A condition on the path without its query string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchPath {
    /// It equals this text.
    Equal(String),
    /// It begins with this text.
    Prefix(String),
    /// This regex matches it entirely, with or without the leading slash.
    Regex(String),
}

/// The result of [`parse`], ready to compile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// What the operator allows.
    pub limits: Limits,
    /// The valid names and entries, in the order of the document; each name once.
    pub intercepts: Vec<(String, Intercept)>,
    /// The [`config_hash`] of `intercepts`; 0 unless it is a text, or if the document is unusable.
    pub hash: u64,
}

/// A part of the configuration that was rejected, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The name of the intercept; `None` for the document as a whole.
    pub intercept: Option<String>,
    /// The position, the error, and what was expected.
    pub reason: String,
}

/// Why a document, or one entry of it, is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Not JSON, not an object, or the same top-level key twice.
    #[error("configuration: {0}, no intercept is active")]
    Unreadable(serde_json::Error),
    /// Not UTF-8.
    #[error("configuration: {0}, no intercept is active")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// A schema that this build does not know.
    #[error("version: expected {expected}, found {found}, no intercept is active")]
    Version {
        /// The version that matches the form of `intercepts`.
        expected: &'static str,
        /// The version found.
        found: String,
    },
    /// The operator's limits are invalid, so no entry can be checked against them.
    #[error("limits: {0}, no intercept is active")]
    Limits(serde_json::Error),
    /// A duplicate top-level key.
    #[error("{0}: given twice, no intercept is active")]
    Twice(String),
    /// An unknown top-level key.
    #[error("{0}: unknown field, ignored")]
    Unknown(String),
}

/// Parses a configuration. Never fails: invalid parts are left out and returned as rejected.
///
/// An empty text and `{}` are configurations without intercepts. A document with an invalid version, limits or structure has no intercepts at all, so that a typo
/// cannot enable what an operator forbade. An invalid entry under `intercepts` rejects only itself.
pub fn parse(json: &[u8]) -> (Config, Vec<Rejected>) {
    let mut rejected = Vec::new();
    let config = outline(json, &mut rejected).unwrap_or_else(|error| {
        rejected.push(Rejected {
            intercept: None,
            reason: error.to_string(),
        });
        Config::default()
    });
    (config, rejected)
}

fn outline(json: &[u8], rejected: &mut Vec<Rejected>) -> Result<Config, InvalidConfig> {
    let json = str::from_utf8(json)?.trim_ascii();
    if json.is_empty() {
        return Ok(Config::default());
    }
    let Members(members) = serde_json::from_str(json).map_err(InvalidConfig::Unreadable)?;
    let (mut version, mut limits, mut intercepts) = (None, None, None);
    for (key, value) in members {
        let field = match key.as_str() {
            "version" => &mut version,
            "limits" => &mut limits,
            "intercepts" => &mut intercepts,
            _ => {
                let reason = InvalidConfig::Unknown(key).to_string();
                rejected.push(Rejected {
                    intercept: None,
                    reason,
                });
                continue;
            }
        };
        if field.replace(value.get()).is_some() {
            return Err(InvalidConfig::Twice(key));
        }
    }
    let Some(mut entries) = intercepts else {
        return Ok(Config::default());
    };
    let text: String;
    let (mut hash, mut expected) = (0, VERSION);
    if entries.starts_with('"') {
        text = serde_json::from_str(entries).map_err(InvalidConfig::Unreadable)?;
        (hash, expected) = (config_hash(&text), TEXT_VERSION);
        entries = &text;
    }
    let Members(entries) = serde_json::from_str(entries).map_err(InvalidConfig::Unreadable)?;
    if entries.is_empty() {
        return Ok(Config {
            hash,
            ..Config::default()
        });
    }
    if version != Some(expected) {
        let found = version.unwrap_or("none").to_owned();
        return Err(InvalidConfig::Version { expected, found });
    }
    let limits = limits
        .map(serde_json::from_str)
        .transpose()
        .map_err(InvalidConfig::Limits)?;
    Ok(Config {
        limits: limits.unwrap_or_default(),
        intercepts: read_entries(entries, rejected),
        hash,
    })
}

/// The hash of a text of intercepts, which the filter reports and the author compares.
///
/// FNV-1a of 64 bits, folded to 48, which a metric represents exactly.
///
/// Not cryptographic: an author who forges a collision gains only a status that is early by one push.
pub fn config_hash(text: &str) -> u64 {
    const BITS: u32 = 48;
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> BITS) ^ (hash & ((1 << BITS) - 1))
}

/// Parses each entry separately. Rejects both entries of a duplicate name: neither is preferable.
fn read_entries(
    entries: Vec<(String, &RawValue)>,
    rejected: &mut Vec<Rejected>,
) -> Vec<(String, Intercept)> {
    let mut names = Interner::default();
    let mut read: Vec<(String, Option<Intercept>)> = Vec::with_capacity(entries.len());
    for (name, raw) in entries {
        let mut reject = |error| rejected.push(Rejected::new(&name, &error));
        let place = names.intern(&name);
        if let Some((_, first)) = read.get_mut(place) {
            *first = None;
            reject(InvalidIntercept::Twice);
        } else {
            let entry = serde_json::from_str(raw.get()).map_err(InvalidIntercept::Unreadable);
            let entry = entry.map_err(reject).ok();
            read.push((name, entry));
        }
    }
    read.into_iter()
        .filter_map(|(name, entry)| Some((name, entry?)))
        .collect()
}

impl Rejected {
    /// The reason as one line for a log, at most 200 bytes.
    ///
    /// Parts of it come from other users, so control characters are escaped.
    pub fn log_line(&self) -> String {
        const LONGEST: usize = 200;
        let mut line = String::new();
        for char in self.reason.chars() {
            match char {
                '"' | '\'' => line.push(char),
                char => line.extend(char.escape_debug()),
            }
            if line.len() > LONGEST {
                line.push('…');
                break;
            }
        }
        line
    }

    pub(crate) fn new(name: &str, error: &InvalidIntercept) -> Self {
        Self {
            intercept: Some(name.to_owned()),
            reason: format!("intercepts.{name}{error}"),
        }
    }
}

/// The members of a JSON object, unparsed, in order and with duplicates.
///
/// A map type would silently keep the last one.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect).map(Members)
    }
}

//! What is recorded of each dial.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// One dial, from the request to the end of the connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DialRecord {
    /// When it was asked for.
    #[serde(serialize_with = "as_text")]
    pub time: Timestamp,
    /// The intercept's name, as the relay knows it.
    pub intercept: String,
    /// One per running program of the developer.
    pub instance: String,
    /// What was asked for.
    pub destination: String,
    /// What was dialled, or refused; where there were several, the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// `ok`, a word of [`crate::DialError`], or `cancelled`: the developer gave up first.
    pub outcome: &'static str,
    /// Why it failed, or how the connection broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes to the destination.
    pub sent: u64,
    /// Bytes from the destination.
    pub received: u64,
    /// From the request to the end.
    pub seconds: f64,
}

/// RFC 3339.
fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

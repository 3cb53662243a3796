//! Names that both ends write.

/// Why a dial failed, [`crate::DialError::as_str`].
pub(crate) const DIAL_HEADER: &str = "x-intercept-dial";

/// The same in a sentence.
pub(crate) const REASON_HEADER: &str = "x-intercept-reason";

/// RFC 8484, section 6.
pub(crate) const DNS_TYPE: &str = "application/dns-message";

pub(crate) const DNS_PATH: &str = "/dns";
pub(crate) const CONFIG_PATH: &str = "/config";

/// Asked again and again, so that each end hears the other.
pub(crate) const BEAT_PATH: &str = "/beat";

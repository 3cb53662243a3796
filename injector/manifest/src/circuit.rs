//! Circuit breakers that never break.

use serde_json::{Value, json};

/// For every cluster of ours. Envoy's default of three concurrent retries fails 62 % of the requests at eight concurrent fallbacks (measured): a fallback *is* a retry,
/// and its slot is held until the in-cluster version has answered.
pub fn breakers() -> Value {
    json!({"thresholds": [{
        "priority": "DEFAULT",
        "max_connections": u32::MAX,
        "max_pending_requests": u32::MAX,
        "max_requests": u32::MAX,
        "max_retries": u32::MAX,
    }]})
}

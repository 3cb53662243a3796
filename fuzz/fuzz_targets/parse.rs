//! Arbitrary bytes as a configuration.
//!
//! Parse and compile terminate, and the result can decide a request.
#![no_main]

use intercept_core::{Matcher, Request, parse};
use libfuzzer_sys::fuzz_target;

/// Returns the same value for every header.
struct Echo;

impl Request for Echo {
    fn header(&self, _: &str) -> Option<Vec<u8>> {
        Some(b"/a=a, b".to_vec())
    }

    fn is_port(&self, _: u16) -> bool {
        true
    }

    fn now(&self) -> u64 {
        0
    }
}

fuzz_target!(|json: &[u8]| {
    let (config, rejected) = parse(json);
    let (matcher, more) = Matcher::compile(config);
    assert!(
        rejected
            .iter()
            .chain(&more)
            .all(|one| !one.reason.is_empty())
    );
    let _ = matcher.decide(&Echo);
});

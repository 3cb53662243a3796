//! The targets that the tunnel carries are exactly those that its HTTP library accepts.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod requests;

use http::uri::{Authority, PathAndQuery};
use intercept_core::target::{carries_authority, carries_path};
use intercept_core::{Bypass, Verdict};
use proptest::prelude::*;
use requests::{Table, compile, intercept, request, unlimited, winner};

/// Does the library accept this `:path` and return it unchanged? It drops fragments.
fn library_carries_path(path: &[u8]) -> bool {
    // `?a` is a `PathAndQuery`, but no `:path` starts like that.
    let is_target = path == b"*" || path.starts_with(b"/");
    is_target && PathAndQuery::try_from(path).is_ok_and(|taken| taken.as_str().as_bytes() == path)
}

fn library_carries_authority(authority: &[u8]) -> bool {
    Authority::try_from(authority).is_ok_and(|taken| taken.as_str().as_bytes() == authority)
}

#[track_caller]
fn assert_same_path(path: &[u8]) {
    let text = String::from_utf8_lossy(path);
    assert_eq!(carries_path(path), library_carries_path(path), "{text:?}");
}

#[track_caller]
fn assert_same_authority(authority: &[u8]) {
    assert_eq!(
        carries_authority(authority),
        library_carries_authority(authority),
        "{:?}",
        String::from_utf8_lossy(authority)
    );
}

#[test]
fn every_byte_in_every_place() {
    let mut carried = 0;
    for byte in 0..=u8::MAX {
        for (before, after) in [
            ("", ""),
            ("/", ""),
            ("/a", "b"),
            ("/a?", ""),
            ("/a?b", "c"),
            ("*", ""),
        ] {
            let path = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            assert_same_path(&path);
            carried += usize::from(carries_path(&path));
        }
        for (before, after) in [
            ("", ""),
            ("a", "b"),
            ("", "@b"),
            ("a@", "b"),
            ("[", "]"),
            ("[::1]", ""),
            ("a:", ""),
        ] {
            assert_same_authority(&[before.as_bytes(), &[byte], after.as_bytes()].concat());
        }
        for second in 0..=u8::MAX {
            assert_same_path(&[b'/', byte, second]);
            assert_same_authority(&[byte, second]);
        }
    }
    assert!((300..1_000).contains(&carried), "{carried}");
}

#[test]
fn targets_of_every_form_and_length() {
    for path in [
        "",
        "*",
        "**",
        "*/",
        "/",
        "//",
        "/a#b",
        "http://a/b",
        "a",
        "?a",
        "/?",
        "/\u{fc}",
    ] {
        assert_same_path(path.as_bytes());
    }
    for length in [65_533, 65_534, 65_535, 100_000] {
        let path = format!("/{}", "a".repeat(length - 1));
        assert_same_path(path.as_bytes());
        assert_eq!(carries_path(path.as_bytes()), length < 65_535);
    }
    for colons in 0..12 {
        for host in ["", "a", "a@b", "[::1]", "u:p@[::1]"] {
            assert_same_authority(format!("{host}{}", ":".repeat(colons)).as_bytes());
            assert_same_authority(format!("{}{host}", ":".repeat(colons)).as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_path(path in prop_oneof![r#"/[a-c"<>?#`%{}^|\\\[\] ]{0,8}"#.prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..8)]) {
        assert_same_path(&path);
    }

    #[test]
    fn any_authority(authority in prop_oneof![r"[a:@%\[\]/?#.-]{0,14}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..8)]) {
        assert_same_authority(&authority);
    }
}

/// The verdict on the only intercept, which matches. Checks that the decision agrees.
#[track_caller]
fn verdict(request: &Table) -> (Option<Bypass>, Verdict, String) {
    let matcher = compile(unlimited(), &[("bob", intercept(&["Coder=Bob"]))]);
    winner(&matcher, request);
    let considered = matcher.explain(request).remove(0);
    let bypass = matcher.decide(request).bypass;
    (bypass, considered.verdict, considered.reason)
}

#[test]
fn a_target_that_cannot_be_carried_stays_in_the_cluster() {
    for line in [
        r#":path: /search?filter={"a":1}"#,
        ":path: /a<b",
        ":path: /a`b",
        ":path: /a#b",
        ":path: http://orders/",
        ":authority: 100%",
        ":authority: a b",
    ] {
        let (bypass, verdict, reason) = verdict(&request(&["coder: Bob", line]));
        assert_eq!(
            (bypass, verdict),
            (Some(Bypass::Target), Verdict::Bypassed),
            "{line}"
        );
        assert_eq!(
            reason,
            "matches, but its tunnel cannot carry this path or authority: the cluster answers"
        );
    }
    let mut connect = request(&["coder: Bob"]);
    connect.headers.retain(|(name, _)| name != ":path");
    assert_eq!(verdict(&connect).0, Some(Bypass::Target));
    for line in [
        r#":path: /a"b{c}?d=`e`"#,
        ":path: *",
        ":authority: u:p@[::1]:80",
    ] {
        let (bypass, verdict, _) = verdict(&request(&["coder: Bob", line]));
        assert_eq!((bypass, verdict), (None, Verdict::Wins), "{line}");
    }
}

#[test]
fn a_request_that_comes_back_stays_in_the_cluster() {
    for via in ["bob", "ann,bob", "ann , bob,carol", "\tbob\t"] {
        let (bypass, verdict, reason) = verdict(&request(&[
            "coder: Bob",
            &format!("x-intercept-via: {via}"),
        ]));
        assert_eq!(
            (bypass, verdict),
            (Some(Bypass::Loop), Verdict::Bypassed),
            "{via}"
        );
        assert_eq!(
            reason,
            "matches, but the request has been through it already (x-intercept-via): the cluster answers"
        );
    }
    for via in ["", "ann", "bobby", "Bob", "bob;x", "bob bob"] {
        let (bypass, ..) = verdict(&request(&[
            "coder: Bob",
            &format!("x-intercept-via: {via}"),
        ]));
        assert_eq!(bypass, None, "{via:?}");
    }
    let lines = ["coder: Bob", "x-intercept-via: ann", "x-intercept-via: bob"];
    assert_eq!(verdict(&request(&lines)).0, Some(Bypass::Loop));
}

/// A bypass does not fall through to the second-best intercept.
///
/// The name of another intercept has no effect.
#[test]
fn no_other_intercept_takes_what_comes_back() {
    let matcher = compile(
        unlimited(),
        &[("all", intercept(&[])), ("bob", intercept(&["Coder=Bob"]))],
    );
    let back = |via: &str| request(&["coder: Bob", &format!("x-intercept-via: {via}")]);
    assert_eq!(winner(&matcher, &back("bob")), None);
    assert_eq!(winner(&matcher, &back("all")), Some("bob"));
    let verdicts: Vec<_> = matcher
        .explain(&back("bob"))
        .iter()
        .map(|one| one.verdict)
        .collect();
    assert_eq!(verdicts, [Verdict::Bypassed, Verdict::Outranked]);
}

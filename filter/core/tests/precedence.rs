//! Precedence of intercepts, ports and leases.
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

use intercept_core::{Limits, Matcher, Verdict};
use requests::{NOW, compile, intercept, request, unlimited, winner};

/// The names of the rules, which say all about them.
const EXPECTED: &str = "z-expected";
const UNEXPECTED: &str = "a-unexpected";

/// The first conditions must win over the second, in either order of the map.
///
/// Their name comes last, so that names cannot decide.
#[track_caller]
fn goes_first(expected: &[&str], unexpected: &[&str]) {
    let request = request(&[
        "a: 1",
        "b: 2",
        "c: 3",
        "baggage: k=v,l=w",
        ":path: /api/v2/x",
    ]);
    let matcher = compile(
        unlimited(),
        &[
            (EXPECTED, intercept(expected)),
            (UNEXPECTED, intercept(unexpected)),
        ],
    );
    assert_eq!(winner(&matcher, &request), Some(EXPECTED));
    let alone = compile(unlimited(), &[(UNEXPECTED, intercept(unexpected))]);
    assert_eq!(
        winner(&alone, &request),
        Some(UNEXPECTED),
        "the other one does not match at all"
    );
}

macro_rules! first {
    ($test:ident, $expected:expr, $unexpected:expr) => {
        #[test]
        fn $test() {
            goes_first(&$expected, &$unexpected);
        }
    };
}

first!(two_headers_go_before_one, ["A=1", "B=2"], ["A=1"]);
first!(
    two_headers_go_before_another_one_with_an_equal_path,
    ["A=1", "B=2"],
    ["C=3", "equal /api/v2/x"]
);
first!(headers_and_baggage_count_together, ["A=1", "@k=v"], ["B=2"]);
first!(
    two_baggage_keys_go_before_one_header,
    ["@k=v", "@l=w"],
    ["A=1"]
);
first!(a_regex_counts_like_a_text, ["A=.", "B=."], ["A=1"]);
first!(one_condition_goes_before_none, ["A=1"], ["equal /api/v2/x"]);
first!(
    an_equal_path_goes_before_a_regex,
    ["A=1", "equal /api/v2/x"],
    ["A=1", "regex api/v2/x"]
);
first!(
    a_path_regex_goes_before_a_prefix,
    ["A=1", "regex .*"],
    ["A=1", "prefix /api/v2/x"]
);
first!(
    a_longer_prefix_goes_before_a_shorter_one,
    ["A=1", "prefix /api/v2"],
    ["A=1", "prefix /api"]
);
first!(a_prefix_goes_before_no_path, ["A=1", "prefix /"], ["A=1"]);
first!(paths_decide_between_everybody, ["prefix /api"], []);

#[test]
fn names_decide_last() {
    let entries = [
        ("b", intercept(&["A=1"])),
        ("a", intercept(&["B=2"])),
        ("c", intercept(&["@k=v"])),
    ];
    let matcher = compile(unlimited(), &entries);
    assert_eq!(
        winner(&matcher, &request(&["a: 1", "b: 2", "baggage: k=v"])),
        Some("a")
    );
    assert_eq!(
        winner(&matcher, &request(&["a: 1", "baggage: k=v"])),
        Some("b")
    );
    assert_eq!(winner(&matcher, &request(&["baggage: k=v"])), Some("c"));
    assert_eq!(winner(&matcher, &request(&[])), None);
}

#[test]
fn each_developer_gets_what_matches_theirs() {
    let entries = [
        ("all", intercept(&[])),
        ("alice", intercept(&["Coder=Alice"])),
        ("bob", intercept(&["Coder=Bob", "prefix /api"])),
    ];
    let matcher = compile(unlimited(), &entries);
    assert_eq!(winner(&matcher, &request(&["coder: Alice"])), Some("alice"));
    assert_eq!(
        winner(&matcher, &request(&["coder: Bob", ":path: /api"])),
        Some("bob")
    );
    assert_eq!(winner(&matcher, &request(&["coder: Bob"])), Some("all"));
}

#[test]
fn explain_says_what_became_of_each() {
    let expires = |seconds: u64| {
        let mut entry = intercept(&["A=1"]);
        entry.expires = seconds;
        entry
    };
    let mut elsewhere = intercept(&["A=1"]);
    elsewhere.port = 9090;
    let entries = [
        ("a", intercept(&["A=1", "B=2"])),
        ("b", intercept(&["A=1", "equal /api"])),
        ("c", intercept(&["A=1"])),
        ("d", intercept(&["A=1"])),
        ("e", expires(NOW)),
        ("f", expires(NOW + 200_000)),
        ("g", elsewhere),
        ("h", intercept(&["X=1"])),
        ("i", intercept(&["A=2"])),
        ("j", intercept(&["@k=.+"])),
        ("k", intercept(&["A=1", "prefix /v1"])),
        ("l", intercept(&["A=1", "regex v."])),
    ];
    let matcher = compile(unlimited(), &entries);
    let mut told: Vec<_> = matcher
        .explain(&request(&["a: 1", "b: 2", ":path: /api?q"]))
        .into_iter()
        .map(|one| (one.intercept, one.verdict.as_str(), one.reason))
        .collect();
    told.sort();
    let expected = [
        ("a", "wins", "all its conditions match"),
        ("b", "outranked", "matches too, but a has more conditions"),
        ("c", "outranked", "matches too, but a has more conditions"),
        ("d", "outranked", "matches too, but a has more conditions"),
        ("e", "expired", "its lease is over"),
        (
            "f",
            "no match",
            "its lease ends later than the operator allows (limits.max_lease_seconds)",
        ),
        ("g", "no match", "port: the request is not for port 9090"),
        ("h", "no match", "header X: absent, expected `1`"),
        ("i", "no match", "header A: `1` does not match `2`"),
        ("j", "no match", "baggage k: no member matches `.+`"),
        (
            "k",
            "no match",
            "path: `/api?q` does not match prefix `/v1`",
        ),
        ("l", "no match", "path: `/api?q` does not match regex `v.`"),
    ]
    .map(|(name, verdict, reason)| (name, verdict, reason.to_owned()));
    assert_eq!(told, expected);
}

#[test]
fn explain_says_why_another_goes_first() {
    let reason = |expected: &[&str], other: &[&str]| {
        let matcher = compile(
            unlimited(),
            &[("a", intercept(expected)), ("b", intercept(other))],
        );
        let told = matcher.explain(&request(&["a: 1"]));
        assert_eq!(told[1].verdict, Verdict::Outranked);
        told[1].reason.clone()
    };
    assert_eq!(
        reason(&["A=1", "equal /"], &["A=1"]),
        "matches too, but the path condition of a goes first (equal, regex, longer prefix, shorter prefix, none)"
    );
    assert_eq!(
        reason(&["A=1"], &["A=1"]),
        "matches too, but a comes first by name"
    );
    assert_eq!(
        reason(&["A=1", "regex /x|"], &["A=1", "regex |/x"]),
        "matches too, but a comes first by name"
    );
}

#[test]
fn explain_says_why_nobody_gets_a_probe_or_a_mirrored_request() {
    let matcher = compile(unlimited(), &[("a", intercept(&[]))]);
    let reason = |line: &str| matcher.explain(&request(&[line])).remove(0).reason;
    assert_eq!(
        reason("user-agent: kube-probe/1"),
        "a probe of the kubelet never matches an intercept of all requests"
    );
    assert_eq!(
        reason(":authority: x-shadow"),
        "a mirrored request (authority ending in -shadow) never matches"
    );
}

#[test]
fn an_intercept_takes_requests_to_its_port_only() {
    let matcher = compile(unlimited(), &[("a", intercept(&["A=1"]))]);
    let mut request = request(&["a: 1"]);
    assert_eq!(winner(&matcher, &request), Some("a"));
    request.port = 9090;
    assert_eq!(winner(&matcher, &request), None);
}

fn lease(left: i64, longest: u64) -> (Matcher, requests::Table) {
    let mut entry = intercept(&["A=1"]);
    entry.expires = NOW.checked_add_signed(left).expect("in range");
    let limits = Limits {
        max_lease_seconds: longest,
        ..Limits::default()
    };
    (compile(limits, &[("a", entry)]), request(&["a: 1"]))
}

#[test]
fn a_lease_ends_at_its_exact_second() {
    for (left, expected) in [(1, Some("a")), (0, None), (-1, None)] {
        let (matcher, request) = lease(left, 3_600);
        assert_eq!(winner(&matcher, &request), expected, "{left} s left");
        assert_eq!(
            matcher.decide(&request).expired,
            expected.is_none(),
            "{left} s left"
        );
    }
}

#[test]
fn a_lease_longer_than_allowed_and_a_minute_of_skew_does_not_match() {
    for (left, expected) in [(3_600, Some("a")), (3_660, Some("a")), (3_661, None)] {
        let (matcher, request) = lease(left, 3_600);
        assert_eq!(winner(&matcher, &request), expected, "{left} s left");
        assert!(!matcher.decide(&request).expired, "{left} s left");
    }
}

#[test]
fn the_longest_lease_of_all_is_a_number_too() {
    let (matcher, request) = lease(1, u64::MAX);
    assert_eq!(winner(&matcher, &request), Some("a"));
    let mut entry = intercept(&["A=1"]);
    entry.expires = u64::MAX;
    let limits = Limits {
        max_lease_seconds: u64::MAX,
        ..Limits::default()
    };
    assert_eq!(
        winner(&compile(limits, &[("a", entry)]), &request),
        Some("a")
    );
}

#[test]
fn an_expired_intercept_leaves_the_request_to_the_next() {
    let mut expired = intercept(&["A=1", "B=2"]);
    expired.expires = NOW;
    let matcher = compile(unlimited(), &[("a", expired), ("b", intercept(&["A=1"]))]);
    assert_eq!(winner(&matcher, &request(&["a: 1", "b: 2"])), Some("b"));
}

#[test]
fn an_expired_intercept_whose_conditions_miss_is_not_counted() {
    let (matcher, _) = lease(-1, 3_600);
    assert!(!matcher.decide(&request(&["a: 2"])).expired);
}

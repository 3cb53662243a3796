//! What the schema takes, and what may be changed.

use serde_json::json;

use super::control::{Shop, intercept, with};

#[test]
fn schema_refuses_what_is_out_of_bounds() {
    let shop = Shop::new("bounds");
    let header = |name: &str, value: &str| json!([{"name": name, "value": value}]);
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize| json!(vec![json!({"name": "a", "value": "b"}); count]);
    let cases = [
        ("/metadata/name", json!("a.b")),
        ("/metadata/name", json!(long(64))),
        ("/spec/owner", json!(long(254))),
        ("/spec/workload/name", json!("../../x y")),
        ("/spec/workload/kind", json!("Job")),
        ("/spec/port", json!(0)),
        ("/spec/port", json!(65_536)),
        ("/spec/match/headers", header(&long(257), "a")),
        ("/spec/match/headers", header("a", &long(1_025))),
        ("/spec/match/headers", header("a", "")),
        ("/spec/match/headers", many(17)),
        (
            "/spec/match/baggage",
            json!([{"key": "a", "value": long(1_025)}]),
        ),
        ("/spec/match/path", json!({"prefix": long(2_049)})),
        ("/spec/match/path", json!({"prefix": "/a", "equal": "/a"})),
        ("/spec/match/path", json!({})),
        ("/spec/match", json!(null)),
        ("/spec/tunnel/relay", json!(64)),
        ("/spec/tunnel/relay", json!(-1)),
        ("/spec/tunnel/address", json!(long(32))),
        ("/spec/tunnel/address", json!("a".repeat(33))),
        ("/spec/leaseSeconds", json!(299)),
        ("/spec/leaseSeconds", json!(86_401)),
        ("/spec/renewTime", json!("tomorrow")),
        ("/spec/renewTime", json!(long(41))),
    ];
    for (pointer, value) in cases {
        let bad = with(intercept("bob", "bob"), pointer, value.clone());
        let (passed, text) = shop.kubectl("bob", &["create"], Some(&bad));
        assert!(
            !passed && text.contains("is invalid"),
            "{pointer} {value}: {text}"
        );
    }
    shop.create("bob", &intercept("bob", "bob"));
}

#[test]
fn spec_is_immutable_but_for_renew_time() {
    let shop = Shop::new("immutable");
    shop.create("bob", &intercept("bob", "bob"));
    let patch = |patch: &serde_json::Value| {
        shop.kubectl(
            "bob",
            &[
                "patch",
                "intercept",
                "bob",
                "--type=merge",
                "-p",
                &patch.to_string(),
            ],
            None,
        )
    };
    let changes = [
        json!({"workload": {"name": "carts"}}),
        json!({"port": 9090}),
        json!({"match": {"headers": []}}),
        json!({"match": {"baggage": [{"key": "a", "value": "b"}]}}),
        json!({"match": {"path": {"prefix": "/"}}}),
        json!({"tunnel": {"relay": 1}}),
        json!({"tunnel": {"address": "0".repeat(32)}}),
        json!({"leaseSeconds": 7200}),
        json!({"allowOverlap": true}),
    ];
    for change in changes {
        let (passed, text) = patch(&json!({"spec": change}));
        assert!(
            !passed && text.contains("spec is immutable except for renewTime"),
            "{change}: {text}"
        );
    }
    for time in [
        "2026-11-30T09:10:00Z",
        "2020-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ] {
        let (passed, text) = patch(&json!({"spec": {"renewTime": time}}));
        assert!(passed, "{time}: {text}");
    }
}

#[test]
fn intercepts_are_found_by_owner_and_workload() {
    let shop = Shop::new("found-by");
    shop.create("bob", &intercept("bob-1", "bob"));
    shop.create("alice", &intercept("alice-1", "alice"));
    for (selector, expected) in [
        ("spec.owner=bob", "intercept.injector.dev/bob-1\n"),
        (
            "spec.workload.name=orders,spec.owner=alice",
            "intercept.injector.dev/alice-1\n",
        ),
        ("spec.workload.name=carts", ""),
    ] {
        let list = [
            "get",
            "intercepts",
            "-o",
            "name",
            "--field-selector",
            selector,
        ];
        assert_eq!(shop.must("bob", &list, None), expected, "{selector}");
    }
    shop.until("bob-1", "Accepted", "True Accepted");
    let table = shop.must("bob", &["get", "intercept", "bob-1"], None);
    let header: Vec<&str> = table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(
        header,
        [
            "NAME",
            "WORKLOAD",
            "PORT",
            "OWNER",
            "ACCEPTED",
            "PROGRAMMED",
            "EXPIRES",
            "AGE"
        ]
    );
    assert!(!table.contains("<invalid>"), "{table}");
}

//! What a decision looks up in a request: each value at most once, and only if it can still matter.
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

use std::cell::RefCell;

use intercept_core::{Intercept, Request};
use requests::{Table, compile, intercept, request, unlimited};

/// Records every look-up.
struct Counting {
    table: Table,
    asked: RefCell<Vec<String>>,
}

impl Request for Counting {
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.asked.borrow_mut().push(name.to_owned());
        self.table.header(name)
    }

    fn is_port(&self, port: u16) -> bool {
        self.asked.borrow_mut().push("port".to_owned());
        self.table.is_port(port)
    }

    fn now(&self) -> u64 {
        self.asked.borrow_mut().push("now".to_owned());
        self.table.now()
    }
}

/// The look-ups, in order.
#[track_caller]
fn asked(intercepts: &[(&str, Intercept)], lines: &[&str]) -> Vec<String> {
    let matcher = compile(unlimited(), intercepts);
    let counting = Counting {
        table: request(lines),
        asked: RefCell::default(),
    };
    let _ = matcher.decide(&counting);
    counting.asked.into_inner()
}

fn bob() -> Intercept {
    intercept(&["Coder=Bob", "Team=red", "prefix /api"])
}

#[test]
fn no_intercepts_ask_nothing() {
    assert!(asked(&[], &["coder: Bob"]).is_empty());
}

#[test]
fn a_miss_asks_for_one_header() {
    assert_eq!(asked(&[("bob", bob())], &[]), ["coder"]);
    assert_eq!(asked(&[("bob", bob())], &["coder: Alice"]), ["coder"]);
}

#[test]
fn a_second_header_is_asked_for_after_the_first_matched() {
    assert_eq!(asked(&[("bob", bob())], &["coder: Bob"]), ["coder", "team"]);
    assert_eq!(
        asked(&[("bob", bob())], &["coder: Bob", "team: blue"]),
        ["coder", "team"]
    );
}

#[test]
fn path_port_and_clock_are_asked_for_last() {
    let headers = ["coder: Bob", "team: red"];
    assert_eq!(
        asked(&[("bob", bob())], &headers),
        ["coder", "team", ":authority", ":path"]
    );
    let all = ["coder: Bob", "team: red", ":path: /api"];
    assert_eq!(
        asked(&[("bob", bob())], &all),
        [
            "coder",
            "team",
            ":authority",
            ":path",
            "port",
            "now",
            "x-intercept-via"
        ]
    );
}

#[test]
fn only_a_match_is_asked_where_it_has_been() {
    let is_asked =
        |lines: &[&str]| asked(&[("bob", bob())], lines).contains(&"x-intercept-via".to_owned());
    assert!(!is_asked(&["coder: Bob", "team: red", ":path: /web"]));
    assert!(is_asked(&["coder: Bob", "team: red", ":path: /api"]));
}

#[test]
fn another_port_is_not_asked_for_the_time() {
    let mut elsewhere = intercept(&["Coder=Bob"]);
    elsewhere.port = 9090;
    assert_eq!(
        asked(&[("bob", elsewhere)], &["coder: Bob"]),
        ["coder", ":authority", "port"]
    );
}

#[test]
fn a_header_that_many_name_is_asked_for_once() {
    let entries = ["a", "b", "c"].map(|name| (name, intercept(&["Coder=B.*", "prefix /nowhere"])));
    assert_eq!(
        asked(&entries, &["coder: Bob"]),
        ["coder", ":authority", ":path"]
    );
    let entries = [
        ("a", intercept(&["Coder=Bob", "CODER=B.b"])),
        ("b", intercept(&["coder=.*"])),
    ];
    assert_eq!(
        asked(&entries, &["coder: Bob"]),
        [
            "coder",
            ":authority",
            "port",
            "now",
            "x-intercept-via",
            ":path"
        ]
    );
}

#[test]
fn the_clock_is_asked_once_for_many_leases() {
    let entries: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let mut expired = intercept(&["Coder=Bob"]);
            expired.expires = 1;
            (name, expired)
        })
        .into();
    let times = asked(&entries, &["coder: Bob"])
        .into_iter()
        .filter(|question| question == "now")
        .count();
    assert_eq!(times, 1);
}

#[test]
fn baggage_is_asked_for_once_and_only_where_it_is_named() {
    let entries = [
        ("a", intercept(&["@k=v"])),
        ("b", intercept(&["@l=w.*"])),
        ("c", intercept(&["@k=x", "@l=w"])),
    ];
    assert_eq!(asked(&entries, &["baggage: m=n"]), ["baggage"]);
    assert_eq!(asked(&[("bob", bob())], &["baggage: k=v"]), ["coder"]);
}

#[test]
fn everybody_is_asked_who_they_are() {
    assert_eq!(
        asked(&[("all", intercept(&[]))], &[]),
        [
            "user-agent",
            ":authority",
            "port",
            "now",
            "x-intercept-via",
            ":path"
        ]
    );
    assert_eq!(
        asked(&[("all", intercept(&[]))], &["user-agent: kube-probe/1"]),
        ["user-agent"]
    );
}

fn many(count: usize) -> Vec<(String, Intercept)> {
    (0..count)
        .map(|n| {
            let mut entry = intercept(&[
                &format!("Coder=dev-{n}"),
                &format!("X-{n}=1"),
                "prefix /api",
            ]);
            entry.owner = format!("dev-{n}");
            (format!("dev-{n}"), entry)
        })
        .collect()
}

#[test]
fn a_miss_asks_the_same_of_one_and_of_ten_thousand_exact_intercepts() {
    let ask = |count: usize, lines: &[&str]| {
        let many = many(count);
        let entries: Vec<_> = many
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.clone()))
            .collect();
        asked(&entries, lines)
    };
    for lines in [
        &[][..],
        &["coder: nobody"],
        &["coder: nobody, no one", "x-1: 1"],
    ] {
        assert_eq!(ask(10_000, lines), ["coder"], "{lines:?}");
        assert_eq!(ask(2, lines), ["coder"], "{lines:?}");
    }
    assert_eq!(ask(10_000, &["coder: dev-77"]), ["coder", "x-77"]);
}

//! Rejected parts of a configuration, and the exact reasons.
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

use intercept_core::pattern::{self, Pattern};
use intercept_core::{Config, Intercept, Limits, Matcher, config_hash, parse, validate};
use requests::{intercept, json, request, unlimited, winner};

/// Parses and compiles. Returns the active names, and the reasons of rejections.
fn load(json: &[u8]) -> (Vec<String>, Vec<String>) {
    let (config, mut rejected) = parse(json);
    let (matcher, more) = Matcher::compile(config);
    rejected.extend(more);
    let active = matcher.intercepts().iter().map(|one| one.name().to_owned());
    (
        active.collect(),
        rejected.into_iter().map(|one| one.reason).collect(),
    )
}

/// A valid entry works beside an invalid one, which is rejected with exactly this reason.
///
/// The CLI, which validates before it writes, gives the same one.
#[track_caller]
fn refused_with(limits: Limits, name: &str, bad: Intercept, reason: &str) {
    let told = validate(name, &bad, &limits)
        .expect_err("valid")
        .to_string();
    assert_eq!(format!("intercepts.{name}{told}"), reason);
    let (active, reasons) = load(&json(
        limits,
        &[("good", intercept(&["Good=1"])), (name, bad)],
    ));
    assert_eq!(
        (active, reasons),
        (vec!["good".to_owned()], vec![reason.to_owned()])
    );
}

macro_rules! refused {
    ($test:ident, $change:expr, $reason:expr) => {
        #[test]
        fn $test() {
            let change: fn(&mut Intercept) = $change;
            let mut bad = intercept(&["A=1"]);
            change(&mut bad);
            refused_with(
                Limits::default(),
                "bob",
                bad,
                &format!("intercepts.bob{}", $reason),
            );
        }
    };
}

macro_rules! bad_conditions {
    ($test:ident, $conditions:expr, $reason:expr) => {
        #[test]
        fn $test() {
            refused_with(
                Limits::default(),
                "bob",
                intercept(&$conditions),
                &format!("intercepts.bob{}", $reason),
            );
        }
    };
}

const CLUSTER: &str = ".cluster: expected `intercept|…` in visible ASCII";
const ADDRESS: &str = ".address: expected 32 lower-case hexadecimal digits";
refused!(port_zero, |bad| bad.port = 0, ".port: expected 1 to 65535");
refused!(
    a_cluster_of_somebody_else,
    |bad| bad.cluster = "outbound|8080||x".to_owned(),
    CLUSTER
);
refused!(
    a_cluster_with_a_blank,
    |bad| bad.cluster = "intercept|a b".to_owned(),
    CLUSTER
);
refused!(
    a_cluster_with_a_line_end,
    |bad| bad.cluster = "intercept|a\n".to_owned(),
    CLUSTER
);
refused!(no_address, |bad| bad.address = String::new(), ADDRESS);
refused!(
    an_upper_case_address,
    |bad| bad.address = "A".repeat(32),
    ADDRESS
);
refused!(
    a_longer_address,
    |bad| bad.address = "a".repeat(33),
    ADDRESS
);

bad_conditions!(
    a_header_name_with_a_blank,
    ["A=1", "a b=1"],
    ".headers[1].name: expected a header name, found `a b`"
);
bad_conditions!(
    no_header_name,
    ["=1"],
    ".headers[0].name: expected a header name, found ``"
);
bad_conditions!(
    a_pseudo_header_without_a_name,
    [":=1"],
    ".headers[0].name: expected a header name, found `:`"
);
bad_conditions!(
    a_header_name_with_two_colons,
    ["::a=1"],
    ".headers[0].name: expected a header name, found `::a`"
);
bad_conditions!(
    a_header_name_beyond_ascii,
    ["ä=1"],
    ".headers[0].name: expected a header name, found `ä`"
);
bad_conditions!(
    a_baggage_key_with_a_blank,
    ["@a b=1"],
    ".baggage[0].key: expected a token, found `a b`"
);
bad_conditions!(
    a_baggage_key_with_a_colon,
    ["@:a=1"],
    ".baggage[0].key: expected a token, found `:a`"
);
bad_conditions!(
    an_unclosed_group,
    ["A=1", "B=a(b"],
    ".headers[1].value: found open group without closing ')'"
);
bad_conditions!(
    a_pattern_that_is_valid_only_when_wrapped,
    ["A=a)|(?:b"],
    ".headers[0].value: found closing ')' without matching '('"
);
bad_conditions!(
    look_around,
    ["A=a(?=b)"],
    ".headers[0].value: look-around is not supported"
);
bad_conditions!(
    a_back_reference,
    [r"A=(a)\1"],
    ".headers[0].value: backreferences are not supported"
);
bad_conditions!(
    the_x_flag,
    ["A=(?x)a b"],
    ".headers[0].value: the flag `x` is not supported"
);
bad_conditions!(
    the_x_flag_in_a_group,
    ["A=(?ix:a b)"],
    ".headers[0].value: the flag `x` is not supported"
);
bad_conditions!(
    a_bad_baggage_value,
    ["@k=["],
    ".baggage[0].value: found unclosed character class"
);
bad_conditions!(
    a_bad_path_regex,
    ["A=1", "regex *"],
    ".path.regex: uncounted repetition operator must be applied to a sub-expression"
);
bad_conditions!(
    a_path_regex_that_is_valid_only_when_wrapped,
    ["A=1", "regex a)|(?:b"],
    ".path.regex: found closing ')' without matching '('"
);
const PATH: &str =
    ".path: expected a path that begins with `/` and has neither `?` nor `#`, found ";
bad_conditions!(
    an_equal_path_without_slash,
    ["A=1", "equal api"],
    format!("{PATH}`api`")
);
bad_conditions!(
    a_prefix_without_slash,
    ["A=1", "prefix api"],
    format!("{PATH}`api`")
);
bad_conditions!(
    a_prefix_with_a_query,
    ["A=1", "prefix /a?b"],
    format!("{PATH}`/a?b`")
);
bad_conditions!(
    an_equal_path_with_a_fragment,
    ["A=1", "equal /a#b"],
    format!("{PATH}`/a#b`")
);
bad_conditions!(
    everybody_where_it_is_not_allowed,
    ["prefix /"],
    ": an intercept of all requests is not allowed here (limits.allow_all)"
);
const TOO_BIG: &str = "compiled, the regex is larger than 8192 bytes";
bad_conditions!(
    a_regex_over_8_kib,
    ["A=(.{0,100}){100}"],
    format!(".headers[0].value: {}", TOO_BIG)
);
bad_conditions!(
    a_path_regex_over_8_kib,
    ["A=1", "regex (a{50}){50}"],
    format!(".path.regex: {}", TOO_BIG)
);

/// Each would occupy a parser for minutes.
#[test]
fn a_regex_is_refused_unread_where_it_is_written_in_more_than_8_kib() {
    let names: String = (0..100_000).map(|n| format!("(?<a{n}>)")).collect();
    for written in [
        "(?".repeat(600_000),
        format!("[{}", "[:".repeat(600_000)),
        names,
    ] {
        let reason = format!("a regex of {} bytes, expected at most 8192", written.len());
        let value = Pattern::value(&written).unwrap_err();
        let path = pattern::path(&written).unwrap_err();
        assert_eq!(
            (value.to_string(), path.to_string()),
            (reason.clone(), reason)
        );
    }
    let of_length =
        |length: usize| format!("{}{}", "(?s)".repeat(length / 4), "a".repeat(length % 4));
    assert!(Pattern::value(&of_length(8_192)).is_ok());
    assert!(Pattern::value(&of_length(8_193)).is_err());
    assert!(Pattern::value(&"a".repeat(1_000_000)).is_ok(), "plain text");
}

#[test]
fn log_lines_are_short_and_cannot_be_forged() {
    let bad = intercept(&["a\r\n[warning] left out: \u{1b}[2J\u{202e}=1"]);
    let json = json(
        unlimited(),
        &[
            ("bob", bad),
            ("ann", intercept(&[&format!("{}=1", "ä".repeat(500))])),
        ],
    );
    let (config, _) = parse(&json);
    let (_, rejected) = Matcher::compile(config);
    let lines: Vec<_> = rejected.iter().map(|one| one.log_line()).collect();
    assert_eq!(
        lines[1],
        r"intercepts.bob.headers[0].name: expected a header name, found `a\r\n[warning] left out: \u{1b}[2J\u{202e}`"
    );
    assert!(
        lines[0].ends_with("ää…") && lines[0].len() < 210,
        "{}",
        lines[0]
    );
    let quoted = intercept_core::Rejected {
        intercept: None,
        reason: r#"'"\"#.to_owned(),
    };
    assert_eq!(quoted.log_line(), r#"'"\\"#);
}

#[test]
fn a_regex_under_8_kib_is_taken() {
    for pattern in [
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    ] {
        assert!(
            validate(
                "bob",
                &intercept(&[&format!("A={pattern}")]),
                &Limits::default()
            )
            .is_ok(),
            "{pattern}"
        );
    }
}

#[test]
fn groups_may_be_nested_50_deep() {
    let nested =
        |deep: usize| intercept(&[&format!("A={}a+{}", "(".repeat(deep), ")".repeat(deep))]);
    assert!(validate("bob", &nested(40), &Limits::default()).is_ok());
    refused_with(
        Limits::default(),
        "bob",
        nested(60),
        "intercepts.bob.headers[0].value: pattern has too much nesting",
    );
}

#[test]
fn sixteen_conditions_are_the_most() {
    let conditions = |headers: usize, members: usize| {
        let headers = (0..headers).map(|n| format!("H{n}=1"));
        let conditions: Vec<_> = headers
            .chain((0..members).map(|n| format!("@b{n}=1")))
            .collect();
        intercept(&conditions.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(validate("bob", &conditions(16, 0), &Limits::default()).is_ok());
    assert!(validate("bob", &conditions(8, 8), &Limits::default()).is_ok());
    refused_with(
        Limits::default(),
        "bob",
        conditions(17, 0),
        "intercepts.bob: expected at most 16 conditions, found 17",
    );
    refused_with(
        Limits::default(),
        "bob",
        conditions(8, 9),
        "intercepts.bob: expected at most 16 conditions, found 17",
    );
}

#[test]
fn names_are_dns_labels() {
    let long = "a".repeat(64);
    for name in ["", "Bob", "-bob", "bob-", "b_b", "b.b", "bö", &long] {
        let reason = format!(
            "intercepts.{name}: expected a DNS label (lower-case letters, digits and `-`, at most 63) as name"
        );
        refused_with(Limits::default(), name, intercept(&["A=1"]), &reason);
    }
    for name in ["b", "0", "b-0", &long[1..]] {
        assert!(
            validate(name, &intercept(&["A=1"]), &Limits::default()).is_ok(),
            "{name}"
        );
    }
}

bad_conditions!(
    a_header_that_is_ours,
    ["A=1", "X-Intercept-Via=bob"],
    ".headers[1].name: `X-Intercept-Via` is reserved, expected a header of your own"
);
bad_conditions!(
    a_hop_by_hop_header,
    ["Upgrade=websocket"],
    ".headers[0].name: `Upgrade` is reserved, expected a header of your own"
);
const EMPTY: &str = "is empty, expected a regex (`^$` for an empty value)";
bad_conditions!(
    an_empty_value,
    ["A="],
    format!(".headers[0].value: {EMPTY}")
);
bad_conditions!(
    an_empty_baggage_value,
    ["@k="],
    format!(".baggage[0].value: {EMPTY}")
);
bad_conditions!(
    a_line_end_in_a_value,
    ["A=Bob\r"],
    ".headers[0].value: has a control character, which no header's value has"
);
bad_conditions!(
    two_values_for_one_header,
    ["Coder=Bob", "B=1", "coder=Ann"],
    ".headers[2].value: excludes that of an earlier condition on this name, `Bob`"
);
bad_conditions!(
    two_values_for_host_and_authority,
    ["Host=a", ":authority=b"],
    ".headers[1].value: excludes that of an earlier condition on this name, `a`"
);
bad_conditions!(
    two_values_for_one_baggage_key,
    ["@k=1", "@k=2"],
    ".baggage[1].value: excludes that of an earlier condition on this name, `1`"
);
bad_conditions!(
    a_path_with_a_blank,
    ["A=1", "equal /a b"],
    ".path: `/a b` has a character that requests send percent-encoded only (a blank as `%20`)"
);

#[track_caller]
fn is_valid(conditions: &[&str]) -> bool {
    validate("bob", &intercept(conditions), &unlimited()).is_ok()
}

#[test]
fn blanks_at_an_end_are_refused() {
    for value in [
        " Bob", "Bob ", "\tBob", "Bob\t", " B.*", "B.* ", r"Bob\ ", " +x", " ",
    ] {
        let reason = validate("bob", &intercept(&[&format!("A={value}")]), &unlimited())
            .expect_err(value)
            .to_string();
        assert_eq!(
            reason,
            ".headers[0].value: begins or ends with a blank, which no header's value does"
        );
    }
    for condition in [
        "A=Bob Ann",
        "A= ?Bob",
        "A= *Bob",
        "A= {0,2}Bob",
        "A=Bob | Ann",
        "@k= bob",
    ] {
        assert!(is_valid(&[condition]), "{condition}");
    }
}

#[test]
fn eight_names_and_those_of_one_hop_are_reserved() {
    for name in [
        "",
        "-address",
        "-cluster",
        "-error",
        "-lost",
        "-served-by",
        "-unavailable",
        "-via",
    ] {
        assert!(!is_valid(&[&format!("x-intercept{name}=1")]), "{name}");
    }
    for name in [
        "connection",
        "keep-alive",
        "TE",
        "transfer-encoding",
        "proxy-connection",
        "http2-settings",
    ] {
        assert!(!is_valid(&[&format!("{name}=1")]), "{name}");
    }
    for name in [
        "x-intercept-id",
        "X-Intercept-Dev",
        "x-interceptor",
        "x-intercept-",
        "trailer",
        "x-via",
    ] {
        assert!(is_valid(&[&format!("{name}=1")]), "{name}");
    }
}

#[test]
fn values_that_agree_may_be_given_twice() {
    for conditions in [
        ["Coder=Bob", "CODER=Bob"],
        ["Coder=Bob", "coder=B.*"],
        [r"Coder=a\.b", "coder=a[.]b"],
        ["@k=1", "@K=2"],
        ["k=1", "@k=2"],
    ] {
        assert!(is_valid(&conditions), "{conditions:?}");
    }
    assert!(is_valid(&["A=^$"]));
}

#[test]
fn header_names_are_tokens_or_pseudo_headers() {
    for name in [
        "a",
        "X_y",
        "!#$%&'*+-.^_`|~0aZ",
        ":method",
        ":authority",
        ":path",
        ":scheme",
    ] {
        assert!(
            validate(
                "bob",
                &intercept(&[&format!("{name}=1")]),
                &Limits::default()
            )
            .is_ok(),
            "{name}"
        );
    }
}

fn only(names: &[&str]) -> Limits {
    Limits {
        header_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..Limits::default()
    }
}

#[test]
fn a_header_name_that_the_operator_does_not_allow_is_refused() {
    let reason = "intercepts.bob.headers[1].name: `B` is not among the header names allowed here (limits.header_names)";
    refused_with(
        only(&["good", "a"]),
        "bob",
        intercept(&["A=1", "B=1"]),
        reason,
    );
    assert!(
        validate("bob", &intercept(&["A=1", "B=1"]), &only(&["a", "b"])).is_ok(),
        "in any case"
    );
}

#[test]
fn host_and_authority_are_one_header_for_an_operator_too() {
    for (allowed, named) in [("host", ":authority=1"), (":Authority", "Host=1")] {
        let checked = validate("bob", &intercept(&[named]), &only(&[allowed]));
        assert!(checked.is_ok(), "{allowed}, {named}: {checked:?}");
    }
    let reason = "intercepts.bob.headers[0].name: `host` is not among the header names allowed here (limits.header_names)";
    let others = only(&["good", ":path"]);
    refused_with(others, "bob", intercept(&["host=1"]), reason);
}

#[test]
fn baggage_needs_its_header_to_be_allowed() {
    let reason = "intercepts.bob.baggage: the header `baggage` is not among the header names allowed here (limits.header_names)";
    refused_with(only(&["Good", "k"]), "bob", intercept(&["@k=1"]), reason);
    assert!(validate("bob", &intercept(&["@k=1"]), &only(&["Baggage"])).is_ok());
}

#[test]
fn everybody_is_allowed_where_the_operator_says_so() {
    assert!(validate("bob", &intercept(&[]), &unlimited()).is_ok());
    assert!(validate("bob", &intercept(&["prefix /x"]), &unlimited()).is_ok());
    let none = Limits {
        header_names: Some(Vec::new()),
        ..unlimited()
    };
    assert!(
        validate("bob", &intercept(&[]), &none).is_ok(),
        "it names no header"
    );
}

/// The JSON of one entry, for documents that the CLI would not write.
fn entry(more: &str) -> String {
    format!(
        r#"{{"port":8080,"cluster":"intercept|x","address":"0123456789abcdef0123456789abcdef","owner":"b","created":0,"expires":1000060,"headers":[{{"name":"a","value":"1"}}]{more}}}"#
    )
}

fn with_entries(entries: &str) -> String {
    format!(r#"{{"version":1,"intercepts":{{{entries}}}}}"#)
}

macro_rules! loads {
    ($test:ident, $json:expr, [$($active:expr),*], [$($reason:expr),*]) => {
        #[test]
        fn $test() {
            let json: String = $json.into();
            let (active, reasons) = load(json.as_bytes());
            assert_eq!(active, Vec::<&str>::from([$($active),*]));
            assert_eq!(reasons, Vec::<&str>::from([$($reason),*]));
        }
    };
}

loads!(no_bytes_are_no_intercepts, "", [], []);
loads!(blanks_are_no_intercepts, " \n", [], []);
loads!(an_empty_object_is_no_intercepts, "{}", [], []);
loads!(a_version_alone_is_no_intercepts, r#"{"version":1}"#, [], []);
loads!(
    no_intercepts_need_no_version,
    r#"{"intercepts":{}}"#,
    [],
    []
);
loads!(
    an_entry_loads,
    with_entries(&format!(r#""bob":{}"#, entry(""))),
    ["bob"],
    []
);
loads!(
    a_document_without_a_version,
    format!(r#"{{"intercepts":{{"bob":{}}}}}"#, entry("")),
    [],
    ["version: expected 1, found none, no intercept is active"]
);
loads!(
    a_document_of_a_higher_version,
    format!(r#"{{"version":2,"intercepts":{{"bob":{}}}}}"#, entry("")),
    [],
    ["version: expected 1, found 2, no intercept is active"]
);
loads!(
    entries_as_text,
    as_text(2, &format!(r#"{{"bob":{}}}"#, entry(""))),
    ["bob"],
    []
);
loads!(
    entries_as_text_of_the_version_of_the_map,
    as_text(1, &format!(r#"{{"bob":{}}}"#, entry(""))),
    [],
    ["version: expected 2, found 1, no intercept is active"]
);
loads!(
    one_bad_entry_in_a_text,
    as_text(2, &format!(r#"{{"bob":{},"eve":{{"port":1}}}}"#, entry(""))),
    ["bob"],
    ["intercepts.eve: missing field `cluster` at line 1 column 10"]
);
loads!(
    text_that_is_no_map,
    as_text(2, "[]"),
    [],
    [
        "configuration: invalid type: sequence, expected an object at line 1 column 0, no intercept is active"
    ]
);
loads!(
    a_version_in_quotes,
    format!(r#"{{"version":"1","intercepts":{{"bob":{}}}}}"#, entry("")),
    [],
    ["version: expected 1, found \"1\", no intercept is active"]
);
loads!(
    limits_that_cannot_be_read,
    format!(
        r#"{{"version":1,"limits":{{"allow_all":1}},"intercepts":{{"bob":{}}}}}"#,
        entry("")
    ),
    [],
    [
        "limits: invalid type: integer `1`, expected a boolean at line 1 column 14, no intercept is active"
    ]
);
loads!(
    limits_with_an_unknown_field,
    format!(
        r#"{{"version":1,"limits":{{"allowall":true}},"intercepts":{{"bob":{}}}}}"#,
        entry("")
    ),
    [],
    [
        "limits: unknown field `allowall`, expected one of `allow_all`, `max_lease_seconds`, `header_names` at line 1 column 11, no intercept is active"
    ]
);
loads!(
    a_list_instead_of_a_document,
    "[]",
    [],
    [
        "configuration: invalid type: sequence, expected an object at line 1 column 0, no intercept is active"
    ]
);
loads!(
    a_document_cut_off,
    r#"{"version":1"#,
    [],
    ["configuration: EOF while parsing an object at line 1 column 12, no intercept is active"]
);
loads!(
    something_behind_the_document,
    r#"{"version":1} x"#,
    [],
    ["configuration: trailing characters at line 1 column 15, no intercept is active"]
);
loads!(
    a_list_of_intercepts,
    r#"{"version":1,"intercepts":[]}"#,
    [],
    [
        "configuration: invalid type: sequence, expected an object at line 1 column 0, no intercept is active"
    ]
);
loads!(
    a_top_level_field_twice,
    format!(
        r#"{{"version":1,"limits":{{}},"limits":{{"allow_all":true}},"intercepts":{{"bob":{}}}}}"#,
        entry("")
    ),
    [],
    ["limits: given twice, no intercept is active"]
);
loads!(
    an_unknown_top_level_field,
    format!(
        r#"{{"version":1,"comment":"hi","intercepts":{{"bob":{}}}}}"#,
        entry("")
    ),
    ["bob"],
    ["comment: unknown field, ignored"]
);
loads!(
    a_name_twice,
    with_entries(&format!(r#""bob":{0},"bob":{0},"eve":{0}"#, entry(""))),
    ["eve"],
    ["intercepts.bob: given twice"]
);
loads!(
    an_entry_with_an_unknown_field,
    with_entries(&format!(
        r#""bob":{},"eve":{}"#,
        entry(r#","x":1"#),
        entry("")
    )),
    ["eve"],
    [
        "intercepts.bob: unknown field `x`, expected one of `port`, `cluster`, `address`, `owner`, `created`, `headers`, `baggage`, `path`, `expires` at line 1 column 164"
    ]
);
loads!(
    an_entry_with_a_field_twice,
    with_entries(&format!(
        r#""bob":{},"eve":{}"#,
        entry(r#","port":1"#),
        entry("")
    )),
    ["eve"],
    ["intercepts.bob: duplicate field `port` at line 1 column 167"]
);
loads!(
    a_kind_of_path_that_is_none,
    with_entries(&format!(r#""bob":{}"#, entry(r#","path":{"suffix":"/"}"#))),
    [],
    [
        "intercepts.bob: unknown variant `suffix`, expected one of `equal`, `prefix`, `regex` at line 1 column 177"
    ]
);
loads!(
    a_port_too_high,
    with_entries(r#""bob":{"port":65536}"#),
    [],
    ["intercepts.bob: invalid value: integer `65536`, expected u16 at line 1 column 13"]
);
loads!(
    an_entry_without_its_fields,
    with_entries(r#""bob":{}"#),
    [],
    ["intercepts.bob: missing field `port` at line 1 column 2"]
);
loads!(
    an_entry_that_is_null,
    with_entries(&format!(r#""bob":null,"eve":{}"#, entry(""))),
    ["eve"],
    ["intercepts.bob: invalid type: null, expected struct Intercept at line 1 column 4"]
);

#[test]
fn every_required_field_is_missed() {
    for field in ["port", "cluster", "address", "owner", "created", "expires"] {
        let mut value: serde_json::Value = serde_json::from_str(&entry("")).unwrap();
        value.as_object_mut().unwrap().remove(field).unwrap();
        let (active, reasons) = load(with_entries(&format!(r#""bob":{value}"#)).as_bytes());
        assert_eq!(active, Vec::<String>::new());
        assert!(
            reasons[0].starts_with(&format!("intercepts.bob: missing field `{field}`")),
            "{reasons:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_as_a_whole() {
    let (active, reasons) = load(b"{\"version\":1,\"intercepts\":{\"\xff\":{}}}");
    assert_eq!(active, Vec::<String>::new());
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].starts_with("configuration: "), "{reasons:?}");
}

#[test]
fn limits_that_are_not_given_allow_a_day_and_any_header_but_not_everybody() {
    let (config, rejected) = parse(with_entries(&format!(r#""bob":{}"#, entry(""))).as_bytes());
    assert_eq!(rejected, []);
    assert_eq!(
        config.limits,
        Limits {
            allow_all: false,
            max_lease_seconds: 86_400,
            header_names: None
        }
    );
}

#[test]
fn what_is_written_is_what_is_read() {
    let entries = [
        ("a", intercept(&["A=1", "@k=v", "regex x"])),
        ("b", intercept(&["prefix /"])),
    ];
    let (config, rejected) = parse(&json(unlimited(), &entries));
    assert_eq!(rejected, []);
    let expected = Config {
        limits: unlimited(),
        intercepts: entries.map(|(name, entry)| (name.to_owned(), entry)).into(),
        hash: 0,
    };
    assert_eq!(config, expected);
}

/// A configuration with `intercepts` as a text.
fn as_text(version: u64, intercepts: &str) -> String {
    serde_json::json!({"version": version, "intercepts": intercepts}).to_string()
}

/// Reference values of FNV-1a (draft-eastlake-fnv, appendix C), folded.
#[test]
fn hash_of_a_text_never_changes() {
    for (text, fnv) in [
        ("", 0xcbf2_9ce4_8422_2325_u64),
        ("a", 0xaf63_dc4c_8601_ec8c),
        ("foobar", 0x8594_4171_f739_67e8),
    ] {
        let folded = (fnv >> 48) ^ (fnv & 0xffff_ffff_ffff);
        assert_eq!(config_hash(text), folded, "{text}");
    }
}

#[test]
fn hash_is_of_the_text_alone() {
    let text = format!(r#"{{"bob":{}}}"#, entry(""));
    let hash = |json: String| parse(json.as_bytes()).0.hash;
    assert_eq!(hash(as_text(2, &text)), config_hash(&text));
    assert_eq!(hash(as_text(2, "{}")), config_hash("{}"));
    let limited =
        serde_json::json!({"version": 2, "limits": {"allow_all": true}, "intercepts": text});
    assert_eq!(hash(limited.to_string()), config_hash(&text));
    for unused in [as_text(1, &text), "{}".to_owned(), with_entries("")] {
        assert_eq!(hash(unused.clone()), 0, "{unused}");
    }
}

#[test]
fn entry_is_active_while_its_lease_runs() {
    let entries = [1_000, 2_000, 1_100_000].map(|expires| {
        let mut entry = intercept(&["A=1"]);
        entry.expires = expires;
        (format!("at-{expires}"), entry)
    });
    let (matcher, _) = Matcher::compile(Config {
        intercepts: entries.into(),
        ..Config::default()
    });
    // The longest lease is a day, plus a minute for clock differences.
    let at = [999, 1_000, 2_000, 1_100_000 - 86_461, 1_100_000 - 86_460];
    assert_eq!(at.map(|now| matcher.active(now)), [2, 1, 0, 0, 1]);
}

#[test]
fn a_bad_entry_does_not_disable_the_others() {
    let entries = [("good", intercept(&["A=1"])), ("bad", intercept(&["A=("]))];
    let (config, _) = parse(&json(Limits::default(), &entries));
    let (matcher, rejected) = Matcher::compile(config);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].intercept.as_deref(), Some("bad"));
    assert_eq!(winner(&matcher, &request(&["a: 1"])), Some("good"));
}

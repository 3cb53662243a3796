use clap::Parser;

use super::*;
use crate::args::{Cli, Command};

fn parsed(line: &str) -> args::Intercept {
    let words = line.split(' ').map(|word| word.replace('\'', ""));
    match Cli::try_parse_from(words).expect(line).command {
        Command::Intercept(flags) => *flags,
        other => panic!("{other:?}"),
    }
}

fn read(flags: &[&str]) -> Result<Conditions> {
    let line = format!("injector intercept orders {}", flags.join(" "));
    conditions(&parsed(line.trim()).conditions)
}

fn header(name: &str, value: &str) -> MatchHeader {
    MatchHeader {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

#[test]
fn the_seven_examples_mean_what_they_say() {
    let none = Conditions {
        headers: Vec::new(),
        auto: false,
        baggage: Vec::new(),
        path: None,
    };
    let auto = |path| Conditions {
        auto: true,
        path,
        ..none.clone()
    };
    let id = "126a72c7-be8b-4329-af64-768e207a184b";
    let regex = |text: &str| Some(MatchPath::Regex(text.to_owned()));
    let version = || Some(MatchPath::Equal("/api/version".to_owned()));
    let cases = [
        (
            format!("--http-header=Personal-Intercept={id}"),
            Conditions {
                headers: vec![header("Personal-Intercept", id)],
                ..none.clone()
            },
        ),
        (
            "--http-path-prefix=/api --http-header=Coder=Bob".to_owned(),
            Conditions {
                headers: vec![header("Coder", "Bob")],
                path: Some(MatchPath::Prefix("/api".to_owned())),
                ..none.clone()
            },
        ),
        (
            "--http-path-equal=/api/version --http-header=auto".to_owned(),
            auto(version()),
        ),
        ("--http-path-equal=/api/version".to_owned(), auto(version())),
        (
            "--http-path-regex='/(staging-)?api/.*'".to_owned(),
            auto(regex("/(staging-)?api/.*")),
        ),
        (
            "--http-path-regex='(staging-)?api/.*'".to_owned(),
            auto(regex("(staging-)?api/.*")),
        ),
        ("--http-header=all".to_owned(), none.clone()),
    ];
    for (flags, expected) in cases {
        let line = format!("injector intercept orders --port 3000 {flags}");
        let intercept = parsed(&line);
        assert_eq!(intercept.target, "orders");
        let read_port = port(intercept.port.as_deref()).expect(&line);
        assert_eq!(read_port.developer, Some(3000));
        assert_eq!(
            conditions(&intercept.conditions).expect(&line),
            expected,
            "{line}"
        );
    }
}

#[test]
fn the_first_equals_sign_splits_and_a_comma_never_does() {
    for value in ["a=b", "a,b", "a=b,c=d", "=,"] {
        let flag = format!("--http-header=Coder={value}");
        assert_eq!(
            read(&[&flag]).expect(value).headers,
            [header("Coder", value)]
        );
        let flag = format!("--baggage=dev={value}");
        assert_eq!(read(&[&flag]).expect(value).baggage[0].value, value);
    }
}

#[test]
fn headers_may_be_called_auto_and_all() {
    let read = read(&["--http-header=auto=1", "--http-header=all=2"]).expect("pairs");
    assert!(!read.auto);
    assert_eq!(read.headers, [header("auto", "1"), header("all", "2")]);
}

#[test]
fn auto_stands_beside_pairs_and_is_implied_only_without_conditions() {
    let cases = [
        (&["--http-header=auto", "--http-header=Coder=Bob"][..], true),
        (&["--http-header=Coder=Bob"], false),
        (&["--baggage=dev=bob"], false),
        (&["--http-header=auto", "--baggage=dev=bob"], true),
        (&[], true),
        (&["--http-header=all"], false),
        (&["--http-header=all", "--http-path-prefix=/a"], false),
    ];
    for (flags, auto) in cases {
        assert_eq!(read(flags).expect("valid").auto, auto, "{flags:?}");
    }
}

#[test]
fn pseudo_headers_are_accepted_as_names() {
    for name in [":method", ":authority", "X-A_b.c"] {
        let flag = format!("--http-header={name}=x");
        assert_eq!(read(&[&flag]).expect(name).headers[0].name, name);
    }
}

#[test]
fn ports_are_read_in_every_form() {
    let cases = [
        (None, None, None),
        (Some("3000"), Some(3000), None),
        (Some("3000:http"), Some(3000), Some("http")),
        (Some("3000:8080"), Some(3000), Some("8080")),
        (Some(":http"), None, Some("http")),
    ];
    for (flag, developer, service) in cases {
        let read = port(flag).expect("valid");
        assert_eq!(
            (read.developer, read.service.as_deref()),
            (developer, service),
            "{flag:?}"
        );
    }
    for flag in ["", ":", "0", "-1", "65536", "x", "3000:", "0:http"] {
        assert!(port(Some(flag)).is_err(), "{flag}");
    }
}

#[test]
fn leases_are_times_within_bounds() {
    for (flag, seconds) in [
        ("5min", 300),
        ("5m", 300),
        ("1h", 3_600),
        ("1h30m", 5_400),
        ("90m", 5_400),
        ("300s", 300),
        ("24h", 86_400),
    ] {
        assert_eq!(
            lease(flag).expect(flag),
            Duration::from_secs(seconds),
            "{flag}"
        );
    }
    for flag in [
        "",
        "1",
        "1x",
        "299s",
        "24h1s",
        "-1h",
        "h",
        "99999999999999999999h",
    ] {
        assert!(lease(flag).is_err(), "{flag}");
    }
}

#[test]
fn names_are_dns_labels() {
    for good in ["a", "orders-bob", "a--b", "0", &"a".repeat(63)] {
        assert_eq!(name(good).expect(good), good);
    }
    for bad in ["", "-a", "a-", "A", "a_b", "a.b", "é", &"a".repeat(64)] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_label_that_is_offered_instead_is_one() {
    for text in ["Orders_Bob", "a.b", "-a-", "a..b", "É-x"] {
        let label = label(text);
        assert_eq!(name(&label).expect(text), label);
    }
}

#[test]
fn conditions_that_no_request_meets_are_refused() {
    let refused = |flags: &[&str]| {
        let failure = read(flags).expect_err(&flags.join(" "));
        format!("{}\n{}", failure.error(), failure.hint())
    };
    for (flags, expected) in [
        (
            &["--http-header=Coder="][..],
            "--http-header Coder=: the value is empty, expected a regex (`^$` for an empty value)\ninjector intercept … '--http-header=Coder=^$'",
        ),
        (
            &["--http-header=Coder=\tBob"],
            "--http-header Coder=\tBob: the value begins or ends with a blank, which no header's value does\ninjector intercept … --http-header=Coder=Bob",
        ),
        (
            &["--http-header=Coder=Bob", "--http-header=coder=Ann"],
            "--http-header coder=Ann: the value excludes that of an earlier condition on this name, `Bob`\nfor either of them: '--http-header=coder=Bob|Ann'",
        ),
        (
            &["--baggage=dev="],
            "--baggage dev=: the value is empty, expected a regex (`^$` for an empty value)\ninjector intercept … '--baggage=dev=^$'",
        ),
        (
            &["--http-header=x-intercept-via=bob"],
            "--http-header x-intercept-via=bob: `x-intercept-via` is reserved, expected a header of your own\ninjector intercept … --http-header=Coder=bob",
        ),
        (
            &["--http-path-prefix=/a<b"],
            "--http-path-prefix /a<b: a character of it stands percent-encoded in requests\ninjector intercept … --http-path-prefix=/a%3Cb",
        ),
    ] {
        assert_eq!(refused(flags), expected);
    }
    assert!(read(&["--http-header=X-Intercept-Dev=bob"]).is_ok());
}

#[test]
fn patterns_that_exclude_each_other_are_refused() {
    for flags in [
        &["--http-header=Coder=B.*", "--http-header=coder=[^B].*"][..],
        &["--http-header=:authority=a", "--http-header=host=b"],
        &["--http-header=:authority=orders-shadow"],
        &["--http-header=:method=GET,POST"],
        &["--baggage=dev=a.*", "--baggage=dev=b.*"],
        &["--http-path-regex=/api\\?x=.*"],
        &["--http-path-equal=/a\tb"],
        &["--http-path-equal=/a", "--http-header=:path=/b"],
    ] {
        assert!(read(flags).is_err(), "{flags:?}");
    }
    for flags in [
        &["--http-header=Coder=^$"][..],
        &["--http-header=Coder=B.*", "--http-header=coder=.*b"],
        &["--http-header=Coder=Bob", "--baggage=Coder=Ann"],
        &["--baggage=dev=a", "--baggage=Dev=b"],
        &["--baggage=dev=^$"],
        &["--http-header=Coder=ö+"],
        &["--http-path-regex=.*"],
        &["--http-path-prefix=/é"],
    ] {
        assert!(read(flags).is_ok(), "{flags:?}");
    }
}

#[test]
fn wildcards_in_paths_are_warned_of() {
    for (flag, meant) in [
        ("--http-path-prefix=/api/*", "--http-path-prefix=/api/"),
        ("--http-path-equal=/api/**", "--http-path-prefix=/api/"),
        (
            "--http-path-equal=/v1.0/*/x",
            "'--http-path-regex=/v1\\.0/[^/]*/x'",
        ),
        ("--http-path-regex=/api/*", "'--http-path-regex=/api/.*'"),
    ] {
        let warnings = warnings(&read(&[flag]).expect("valid"));
        assert_eq!(warnings.len(), 1, "{flag}");
        assert!(warnings[0].ends_with(meant), "{warnings:?}");
    }
    for flag in ["--http-path-prefix=/api/", "--http-path-regex=/api/.*"] {
        assert_eq!(warnings(&read(&[flag]).expect("valid")), [""; 0]);
    }
}

//! Properties of all configurations and requests.
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
use intercept_core::{
    Config, Intercept, Limits, MatchBaggage, MatchHeader, MatchPath, Matcher, Verdict, parse,
};
use proptest::prelude::*;
use requests::{NOW, Table, intercept, json, unlimited};

/// No failure files: seeds of failures belong into named tests.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// Texts that exercise patterns.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{0,3}",
        1 => r"[ab.*+?(|)\\\[\]^$,;=% ]{0,6}",
        1 => any::<String>(),
    ]
}

fn pattern_text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[ab]{1,2}",
        5 => prop::sample::select(vec!["a.*", "[ab]+", "a|b", ".*", "b?a", "(ab)*", "", "(?i)A", r"a\.b", "^a$", r"\ba"]).prop_map(str::to_owned),
        1 => text(),
    ]
}

/// The text as it is, or repeated up to 100 kB.
fn long_or_short(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "(?", "[:", "[[:a:]", "(?i:", "(?<a", "a|", "a{9}", "\\",
    ]);
    prop_oneof![
        4 => text,
        1 => prop::collection::vec(pieces, 1..6).prop_map(|pieces| {
            let text = pieces.concat();
            text.repeat(100_000 / text.len())
        }),
        1 => prop::collection::vec(prop::sample::select(vec!["(?", "[:", "(?i:", "(", ")", "[", "]", ":", "a", "|", "{9}"]), 0..4_000)
            .prop_map(|pieces| pieces.concat()),
    ]
}

fn any_intercept() -> impl Strategy<Value = Intercept> {
    let name = || {
        prop::sample::select(vec![
            "x",
            "X",
            "x",
            "x",
            "y",
            "y",
            "y",
            "z",
            ":method",
            "baggage",
            "user-agent",
        ])
    };
    let header = (name(), pattern_text()).prop_map(|(name, value)| MatchHeader {
        name: name.to_owned(),
        value,
    });
    let member = (prop::sample::select(vec!["k", "l"]), pattern_text()).prop_map(|(key, value)| {
        MatchBaggage {
            key: key.to_owned(),
            value,
        }
    });
    let path = prop_oneof![
        2 => Just(None),
        1 => prop::sample::select(vec!["/", "/a", "/ab"]).prop_map(|path| Some(MatchPath::Equal(path.to_owned()))),
        1 => prop::sample::select(vec!["/", "/a", "/ab"]).prop_map(|path| Some(MatchPath::Prefix(path.to_owned()))),
        1 => pattern_text().prop_map(|path| Some(MatchPath::Regex(path))),
    ];
    let expires = prop::sample::select(vec![
        NOW + 60,
        NOW + 60,
        NOW + 60,
        NOW + 60,
        NOW + 60,
        NOW + 60,
        NOW,
        NOW + 1_000_000,
    ]);
    let port = prop::sample::select(vec![8080, 8080, 8080, 8080, 8080, 9090]);
    (
        prop::collection::vec(header, 0..3),
        prop::collection::vec(member, 0..2),
        path,
        expires,
        port,
    )
        .prop_map(|(headers, baggage, path, expires, port)| Intercept {
            headers,
            baggage,
            path,
            expires,
            port,
            ..intercept(&[])
        })
}

fn intercepts() -> impl Strategy<Value = Vec<(String, Intercept)>> {
    prop::collection::btree_map("[a-z]{1,2}", any_intercept(), 0..12)
        .prop_map(|map| map.into_iter().collect())
}

fn any_request() -> impl Strategy<Value = Table> {
    let value =
        || prop_oneof![4 => "[ab]{0,3}", 1 => "[ab]{1,2}, ?[ab]{1,2}"].prop_map(String::into_bytes);
    let bytes = || prop_oneof![9 => value(), 1 => prop::collection::vec(any::<u8>(), 0..8)];
    let name = prop::sample::select(vec!["x", "x", "y", "y", "z", ":method"]);
    let headers = prop::collection::vec((name.prop_map(str::to_owned), bytes()), 1..6);
    let baggage = prop_oneof![
        Just(Vec::new()),
        "k=[ab]{0,2}(,l=[ab]{0,2})?".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12)
    ];
    let path = prop_oneof![4 => "/[ab]{0,2}(\\?[ab])?".prop_map(String::into_bytes), 1 => bytes()];
    let agent = prop::sample::select(vec!["kube-probe/1", "curl", "curl", "curl"]);
    let authority = prop::sample::select(vec![
        "orders",
        "orders",
        "orders",
        "orders",
        "orders",
        "orders-shadow",
    ]);
    (headers, baggage, path, agent, authority).prop_map(
        |(mut headers, baggage, path, agent, authority)| {
            for (name, value) in [
                ("baggage", baggage),
                (":path", path),
                ("user-agent", agent.into()),
                (":authority", authority.into()),
            ] {
                headers.push((name.to_owned(), value));
            }
            Table {
                headers,
                port: 8080,
                now: NOW,
            }
        },
    )
}

fn compiled<'i>(intercepts: impl IntoIterator<Item = &'i (String, Intercept)>) -> Matcher {
    Matcher::compile(Config {
        limits: unlimited(),
        intercepts: intercepts.into_iter().cloned().collect(),
        ..Config::default()
    })
    .0
}

fn decided(matcher: &Matcher, request: &Table) -> Option<String> {
    matcher
        .decide(request)
        .intercept
        .map(|one| one.name().to_owned())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_bytes_of_a_configuration_and_no_request_do_harm(config in prop::collection::vec(any::<u8>(), 0..200), request in any_request()) {
        let (config, _) = parse(&config);
        let (matcher, _) = Matcher::compile(config);
        let _ = matcher.decide(&request);
        let _ = matcher.explain(&request);
    }

    #[test]
    fn no_damage_to_a_configuration_does_harm(entries in intercepts(), at in any::<prop::sample::Index>(), byte in any::<u8>(), request in any_request()) {
        let entries: Vec<_> = entries.iter().map(|(name, entry)| (name.as_str(), entry.clone())).collect();
        let mut config = json(unlimited(), &entries);
        let place = at.index(config.len());
        config[place] = byte;
        let (matcher, _) = Matcher::compile(parse(&config).0);
        let _ = matcher.decide(&request);
        let _ = matcher.explain(&request);
    }

    #[test]
    fn no_pattern_does_harm(pattern in long_or_short(any::<String>()), value in any::<String>()) {
        let _ = Pattern::value(&pattern).map(|pattern| pattern.matches(value.as_bytes()));
        let _ = pattern::path(&pattern);
    }

    #[test]
    fn decide_takes_what_explain_says_wins(entries in intercepts(), request in any_request()) {
        let matcher = compiled(&entries);
        let considered = matcher.explain(&request);
        let wins: Vec<_> = considered.iter().filter(|one| one.verdict == Verdict::Wins).map(|one| one.intercept.to_owned()).collect();
        prop_assert!(wins.len() <= 1);
        prop_assert_eq!(decided(&matcher, &request), wins.first().cloned());
        prop_assert_eq!(considered.len(), matcher.intercepts().len());
    }

    /// A single intercept needs no tables.
    ///
    /// The first intercept in order of precedence that matches alone must win among all.
    #[test]
    fn the_tables_find_what_checking_each_in_order_finds(entries in intercepts(), request in any_request()) {
        let matcher = compiled(&entries);
        let by_name = |name: &str| entries.iter().find(|(known, _)| known == name);
        let first = matcher.intercepts().iter().find(|one| decided(&compiled(by_name(one.name())), &request).is_some());
        prop_assert_eq!(decided(&matcher, &request), first.map(|one| one.name().to_owned()));
    }

    #[test]
    fn removing_an_intercept_never_turns_a_miss_into_a_match(entries in intercepts(), gone in any::<prop::sample::Index>(), request in any_request()) {
        prop_assume!(!entries.is_empty());
        let before = decided(&compiled(&entries), &request);
        let removed = &entries[gone.index(entries.len())].0;
        let after = decided(&compiled(entries.iter().filter(|(name, _)| name != removed)), &request);
        if before.is_none() || before.as_ref() != Some(removed) {
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn the_order_of_the_map_does_not_matter(entries in intercepts(), request in any_request()) {
        let write = |entries: &mut dyn Iterator<Item = &(String, Intercept)>| {
            let members: Vec<_> = entries.map(|(name, entry)| format!("\"{name}\":{}", serde_json::to_string(entry).unwrap())).collect();
            format!("{{\"limits\":{{\"allow_all\":true}},\"intercepts\":{{{}}},\"version\":1}}", members.join(","))
        };
        let load = |text: String| decided(&Matcher::compile(parse(text.as_bytes()).0).0, &request);
        let forward = load(write(&mut entries.iter()));
        prop_assert_eq!(&forward, &load(write(&mut entries.iter().rev())));
        prop_assert_eq!(forward, decided(&compiled(&entries), &request));
    }

    #[test]
    fn a_plain_pattern_matches_its_text_as_a_regex_and_nothing_else(pattern in prop_oneof![text(), r"([ab./-]|\\[.*+?()|/-]){0,5}"], other in text()) {
        if let Some(plain) = pattern::literal(&pattern) {
            let regex = regex_lite::Regex::new(&pattern::anchored(&pattern)).unwrap();
            prop_assert!(regex.is_match(&plain), "{plain:?}");
            prop_assert_eq!(regex.is_match(&other), other == plain, "{:?}", other);
        }
    }

    #[test]
    fn what_validate_takes_compile_takes(entry in any_intercept(), name in "[a-z-]{0,3}") {
        for limits in [unlimited(), Limits::default(), Limits { header_names: Some(vec!["X".to_owned()]), ..unlimited() }] {
            let valid = intercept_core::validate(&name, &entry, &limits).is_ok();
            let (matcher, rejected) = Matcher::compile(Config { limits, intercepts: [(name.clone(), entry.clone())].into(), hash: 0 });
            prop_assert_eq!(matcher.intercepts().len(), usize::from(valid));
            prop_assert_eq!(rejected.len(), usize::from(!valid));
        }
    }
}

/// The properties above prove little unless random intercepts match random requests often.
#[test]
fn random_requests_match_random_intercepts_often_enough() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut matched = 0;
    for _ in 0..500 {
        let entries = intercepts().new_tree(&mut runner).unwrap().current();
        let request = any_request().new_tree(&mut runner).unwrap().current();
        matched += usize::from(decided(&compiled(&entries), &request).is_some());
    }
    assert!((50..450).contains(&matched), "{matched} of 500");
}

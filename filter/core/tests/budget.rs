//! The budgets for all intercepts of a workload, and how they count.
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

use intercept_core::pattern::{self, InvalidPattern, Pattern};
use intercept_core::{Bypass, Config, Intercept, Matcher, Rejected, Verdict};
use proptest::prelude::*;
use regex_lite::RegexBuilder;
use requests::{compile, intercept, request, unlimited, winner};

/// The size that the crate counts on this machine, found with its own limit.
///
/// `None` if it rejects the pattern anyway.
fn counted(pattern: &str) -> Option<usize> {
    let is_taken = |limit: usize| {
        let mut builder = RegexBuilder::new(&pattern::anchored(pattern));
        builder.size_limit(limit).build().is_ok()
    };
    let (mut low, mut high) = (0, 1 << 20);
    if !is_taken(high) {
        return None;
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        match is_taken(middle) {
            true => high = middle,
            false => low = middle,
        }
    }
    Some(high)
}

fn is_too_large(pattern: &str) -> bool {
    Pattern::value(pattern).err() == Some(InvalidPattern::TooLarge)
}

/// The computed size is the crate's own on a 64-bit machine, to the byte.
///
/// Each part is repeated until it is too large.
#[test]
fn sizes_are_those_of_the_crate() {
    for part in [
        ".",
        "a",
        "ab",
        r"\.",
        r"\d",
        r"\w",
        r"\W",
        r"\s",
        r"\S",
        r"\D",
        "[a-f]",
        "[a-f0-9]",
        "[^x]",
        "[-a]",
        "[]x]",
        r"[\]x]",
        "[a-c-e]",
        "(a)",
        "(?:a)",
        "(?:ab|c)",
        "(a|b|)",
        "()",
        "(?:)",
        "a?",
        "a*",
        "a+",
        "a*?",
        "(?:a?)*",
        "(?:a*)+",
        "a{3}",
        "a{2,}",
        "a{0,1}",
        "a{0,2}",
        "a{1,3}",
        "a{0}",
        "a{1}",
        "a{ 2 , 4 }",
        "(?:a{2}){3}",
        "^",
        r"\b",
        r"\B",
        r"\b{start}",
        r"\b{2}",
        r"\x41",
        r"\x{41}",
        r"\u0041",
        r"\t",
        "(?P<n>a)",
        "ü",
    ] {
        let mut flipped = false;
        for times in 1..400 {
            let pattern = format!("(?:{part}){{{times}}}");
            let is_taken = counted(&pattern).is_some_and(|size| size <= pattern::SIZE_LIMIT);
            assert_eq!(!is_too_large(&pattern), is_taken, "{pattern}");
            if !is_taken {
                flipped = true;
                break;
            }
        }
        assert!(flipped || part == "a{0}", "{part} never became too large");
    }
}

/// Random parts of patterns, including invalid ones.
fn any_pattern() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "x",
        "-",
        "]",
        "[",
        "^",
        "$",
        ".",
        r"\d",
        r"\w",
        r"\W",
        r"\S",
        r"\.",
        r"\[",
        r"\b",
        r"\x41",
        r"\x{61}",
        "[ab]",
        "[^ab]",
        "[a-c-e]",
        "[]a]",
        "[-a]",
        "[^]a]",
        "[[:alpha:]]",
        "[[:^alpha:]_]",
        r"[\w-]",
        r"[\]]",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?i:",
        "(?s)",
        "(?R)",
        "(?x)",
        "(?<n>",
        "(?P<m>",
        "|",
        "*",
        "+",
        "?",
        "{2}",
        "{0,3}",
        "{2,}",
        "{0}",
        "{ 1 }",
        "{",
        "}",
        r"\b{start}",
        "ü",
        "\\",
    ]);
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn what_is_taken_compiles_on_every_machine(pattern in any_pattern(), times in 1..40_usize) {
        let repeated = format!("(?:{pattern}){{{times}}}");
        for pattern in [pattern, repeated] {
            let taken = Pattern::value(&pattern);
            if taken.is_ok() && pattern::literal(&pattern).is_none() {
                // On 32 bits the crate counts no more than here.
                let size = counted(&pattern);
                prop_assert!(size.is_some_and(|size| size <= pattern::SIZE_LIMIT), "{pattern}: {size:?}");
            }
            // By itself and wrapped, as before there was a shorter way.
            if let Err(InvalidPattern::Syntax(_)) = &taken {
                let build = |pattern: &str| regex_lite::Regex::new(pattern).is_ok();
                prop_assert!(!build(&pattern) || !build(&pattern::anchored(&pattern)), "{pattern}");
            } else if taken.is_ok() {
                prop_assert!(regex_lite::Regex::new(&pattern).is_ok(), "{pattern}");
            }
        }
    }

    #[test]
    fn no_match_is_lost_to_the_search_before_it(pattern in any_pattern(), texts in prop::collection::vec("[abx.-]{0,6}|[A-B]{0,4}", 5)) {
        if let Ok(taken) = Pattern::value(&pattern) {
            let regex = regex_lite::Regex::new(&pattern::anchored(&pattern)).unwrap();
            for text in texts {
                prop_assert_eq!(taken.matches(text.as_bytes()), regex.is_match(&text), "{} {}", pattern, text);
            }
        }
    }
}

fn owned(name: &str, owner: &str, conditions: &[&str]) -> (String, Intercept) {
    let owner = owner.to_owned();
    let intercept = Intercept {
        owner,
        ..intercept(conditions)
    };
    (name.to_owned(), intercept)
}

fn load(intercepts: Vec<(String, Intercept)>) -> (Matcher, Vec<Rejected>) {
    let limits = unlimited();
    Matcher::compile(Config {
        limits,
        intercepts,
        ..Config::default()
    })
}

#[test]
fn an_owner_has_twenty_intercepts_at_most() {
    let mut entries: Vec<_> = (0..25)
        .map(|n| owned(&format!("bob-{n:02}"), "bob", &["A=1"]))
        .collect();
    entries.push(owned("zoe", "zoe", &["A=1"]));
    let (matcher, rejected) = load(entries);
    assert_eq!(matcher.intercepts().len(), 21);
    let names: Vec<_> = rejected
        .iter()
        .filter_map(|one| one.intercept.as_deref())
        .collect();
    assert_eq!(names, ["bob-20", "bob-21", "bob-22", "bob-23", "bob-24"]);
    assert_eq!(
        rejected[0].reason,
        "intercepts.bob-20: one owner has at most 20 intercepts on a workload"
    );
}

#[test]
fn whoever_has_most_entries_is_left_out_first() {
    let hard: Vec<_> = (0..16).map(|n| format!("H{n}=.{{0,90}}")).collect();
    let hard: Vec<_> = hard.iter().map(String::as_str).collect();
    let mut entries: Vec<_> = (0..20)
        .map(|n| owned(&format!("a-{n:02}"), "mallory", &hard))
        .collect();
    entries.extend((0..10).map(|n| owned(&format!("b-{n}"), &format!("dev-{n}"), &hard)));
    entries.extend((0..500).map(|n| owned(&format!("c-{n}"), &format!("exact-{n}"), &["A=1"])));
    let (matcher, rejected) = load(entries);
    assert!(rejected.len() > 5, "{}", rejected.len());
    for one in &rejected {
        assert!(one.reason.starts_with("intercepts.a-"), "{}", one.reason);
        assert!(
            one.reason.contains("larger than 3145728 bytes together"),
            "{}",
            one.reason
        );
    }
    assert!(matcher.intercepts().iter().any(|one| one.name() == "a-00"));
    assert_eq!(matcher.intercepts().len() + rejected.len(), 530);
}

#[test]
fn a_thousand_ordinary_intercepts_fit() {
    let kinds = [
        "Coder=dev-@",
        "X-Dev=d(ev)?-@",
        "Cookie=.*session=dev-@.*",
        "User=(?i)dev-@",
        "Id=[0-9a-f]{8}-@",
        r"User=(user|dev)-@-[a-z]+(at-example\.com)?",
    ];
    let entries = (0..1_000).map(|n| {
        let condition = kinds[n % kinds.len()].replace('@', &n.to_string());
        owned(
            &format!("dev-{n}"),
            &format!("dev-{n}"),
            &[&condition, "regex (staging-)?api/.*"],
        )
    });
    let (matcher, rejected) = load(entries.collect());
    assert_eq!(rejected, []);
    let cookie = format!("a={}; session=dev-902; b=c", "x".repeat(4_000));
    for (line, expected) in [
        ("coder: dev-0".to_owned(), Some("dev-0")),
        ("x-dev: dev-499".to_owned(), Some("dev-499")),
        (format!("cookie: {cookie}"), Some("dev-902")),
        ("user: DEV-903".to_owned(), Some("dev-903")),
        ("id: 01234567-904".to_owned(), Some("dev-904")),
        (format!("cookie: {}", "session=dev-;".repeat(300)), None),
    ] {
        let request = request(&[&line, ":path: /api/x"]);
        let outcome = matcher.decide(&request);
        assert_eq!(outcome.bypass, None, "{line}");
        assert_eq!(winner(&matcher, &request), expected, "{line}");
    }
}

#[test]
fn a_spent_decision_is_the_clusters() {
    let hard = intercept(&[&format!("Cookie={}x", ".*".repeat(80))]);
    let entries: Vec<_> = (0..20).map(|n| (format!("a-{n}"), hard.clone())).collect();
    let mut entries: Vec<_> = entries
        .iter()
        .map(|(name, entry)| (name.as_str(), entry.clone()))
        .collect();
    let mut bob = intercept(&["Cookie=.*x"]);
    bob.owner = "bob".to_owned();
    entries.push(("bob", bob));
    let matcher = compile(unlimited(), &entries);
    let ask = |length: usize| request(&[&format!("cookie: {}y", "x".repeat(length))]);
    let outcome = matcher.decide(&ask(4));
    assert_eq!((outcome.bypass, winner(&matcher, &ask(4))), (None, None));
    for length in [200, 4_000] {
        let outcome = matcher.decide(&ask(length));
        assert_eq!(outcome.bypass, Some(Bypass::Budget), "{length}");
        assert_eq!(winner(&matcher, &ask(length)), None);
    }
    // `explain` gives the reason for each intercept that would match.
    let matching = request(&[&format!("cookie: {}", "x".repeat(4_000))]);
    assert_eq!(matcher.decide(&matching).bypass, Some(Bypass::Budget));
    for considered in matcher.explain(&matching) {
        assert_eq!(
            considered.verdict,
            Verdict::Bypassed,
            "{}",
            considered.intercept
        );
        assert_eq!(
            considered.reason,
            "matches, but the regexes here take too long to try on this request: the cluster answers"
        );
    }
    // A request without the header pays for none of it.
    assert_eq!(matcher.decide(&request(&["other: x"])).bypass, None);
}

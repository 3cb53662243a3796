//! Tables and properties of the conflict check.
//!
//! The core decides what matches, never the check itself.

use intercept_core::{MatchBaggage, MatchHeader, MatchPath, Request, SCHEMA_VERSION, Verdict};
use proptest::prelude::*;

use super::automaton::{Automaton, STATES_PER_SEARCH, Space, common_word};
use super::shortest::shortest_word;
use super::syntax::Marks;
use super::*;

const NOW: u64 = 1_000;

/// A request as a table of headers.
struct Table(Vec<(String, String)>);

impl Request for Table {
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        let found = self
            .0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone().into_bytes())
    }

    fn is_port(&self, port: u16) -> bool {
        port == 8080
    }

    fn now(&self) -> u64 {
        NOW
    }
}

impl From<&ExampleRequest> for Table {
    fn from(example: &ExampleRequest) -> Self {
        let mut headers = example.headers.clone();
        headers.push((":method".to_owned(), example.method.clone()));
        headers.push((":path".to_owned(), example.path.clone()));
        Self(headers)
    }
}

fn everybody() -> Intercept {
    Intercept {
        port: 8080,
        cluster: "intercept|x".to_owned(),
        address: "0".repeat(32),
        owner: "alice@example.com".to_owned(),
        created: 0,
        headers: Vec::new(),
        baggage: Vec::new(),
        path: None,
        expires: NOW + 60,
    }
}

/// Parses conditions in a short notation.
///
/// `Name=regex` is a header, `@key=regex` a baggage member, `equal /x`, `prefix /x` and `regex x` a path.
fn intercept(conditions: &[&str]) -> Intercept {
    let mut intercept = everybody();
    for condition in conditions {
        if let Some((kind, path)) = condition
            .split_once(' ')
            .filter(|(kind, _)| !kind.contains('='))
        {
            let path = path.to_owned();
            intercept.path = Some(match kind {
                "equal" => MatchPath::Equal(path),
                "prefix" => MatchPath::Prefix(path),
                "regex" => MatchPath::Regex(path),
                other => panic!("no kind of path: {other}"),
            });
            continue;
        }
        let (name, value) = condition.split_once('=').unwrap();
        let value = value.to_owned();
        match name.strip_prefix('@') {
            Some(key) => intercept.baggage.push(MatchBaggage {
                key: key.to_owned(),
                value,
            }),
            None => intercept.headers.push(MatchHeader {
                name: name.to_owned(),
                value,
            }),
        }
    }
    intercept
}

fn document(others: impl IntoIterator<Item = (String, Intercept)>) -> Document {
    Document {
        version: SCHEMA_VERSION,
        limits: Limits::default(),
        intercepts: others.into_iter().collect(),
    }
}

/// The names of the matching intercepts, the winner first.
fn matching(request: &Table, intercepts: &[(&str, &Intercept)]) -> Vec<String> {
    let config = Config {
        limits: Limits {
            allow_all: true,
            ..Limits::default()
        },
        intercepts: intercepts
            .iter()
            .map(|(name, intercept)| ((*name).to_owned(), (*intercept).clone()))
            .collect(),
        ..Config::default()
    };
    let (matcher, rejected) = Matcher::compile(config);
    assert_eq!(rejected, []);
    let considered = matcher.explain(request).into_iter();
    let matched = considered.filter(|one| {
        matches!(
            one.verdict,
            Verdict::Wins | Verdict::Bypassed | Verdict::Outranked
        )
    });
    matched.map(|one| one.intercept.to_owned()).collect()
}

/// The overlap of `other`, which exists, and `mine`, which is new.
///
/// Checks with the core that the example matches both.
#[track_caller]
fn meeting(other: &[&str], mine: &[&str]) -> Option<Meeting> {
    let (other, mine) = (intercept(other), intercept(mine));
    let mut meetings = check(
        &document([("other".to_owned(), other.clone())]),
        "mine",
        &mine,
        NOW,
    );
    let meeting = meetings.pop()?;
    if let Some(example) = &meeting.example {
        let both = matching(&Table::from(example), &[("other", &other), ("mine", &mine)]);
        assert_eq!(both.len(), 2, "{example:?} matches only {both:?}");
        assert_can_be_sent(example);
        if let Kind::Note { winner } = &meeting.kind {
            assert_eq!(&both[0], winner);
        }
    }
    Some(meeting)
}

#[track_caller]
fn assert_can_be_sent(example: &ExampleRequest) {
    assert!(
        example.path.starts_with('/') && example.path.bytes().all(|byte| byte.is_ascii_graphic()),
        "{example:?}"
    );
    for (name, value) in &example.headers {
        assert!(
            value
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic()),
            "{name}: {value:?}"
        );
        assert_eq!(value.trim(), value, "{name}");
    }
}

/// The verdict with the example in one line. Checks that it is the same in both directions.
#[track_caller]
fn verdict(one: &[&str], two: &[&str]) -> String {
    let (forth, back) = (meeting(one, two), meeting(two, one));
    let kind = |meeting: &Meeting| matches!(meeting.kind, Kind::Refused);
    assert_eq!(
        forth.as_ref().map(kind),
        back.as_ref().map(kind),
        "depends on the order"
    );
    let Some(meeting) = forth else {
        return "never".to_owned();
    };
    let word = if kind(&meeting) { "refused" } else { "note" };
    format!(
        "{word} {}",
        meeting
            .example
            .as_ref()
            .map_or_else(|| "?".to_owned(), line)
    )
}

fn line(example: &ExampleRequest) -> String {
    let headers = example
        .headers
        .iter()
        .map(|(name, value)| format!(" {name}: {value}"));
    format!(
        "{} {}{}",
        example.method,
        example.path,
        headers.collect::<String>()
    )
}

macro_rules! meet {
    ($test:ident, $one:expr, $two:expr, $expected:expr) => {
        #[test]
        fn $test() {
            assert_eq!(verdict(&$one, &$two), $expected);
        }
    };
}

// The examples of the contract.
meet!(
    a_value_meets_a_regex_that_matches_it,
    ["Coder=Bob"],
    ["Coder=B.*"],
    "refused GET / Coder: Bob"
);
meet!(
    fewer_conditions_take_what_more_conditions_name,
    ["Coder=Bob"],
    ["Coder=Bob", "X=1"],
    "refused GET / Coder: Bob X: 1"
);
meet!(
    everybody_meets_anything,
    [],
    ["Coder=Bob", "@k=v"],
    "refused GET / Coder: Bob baggage: k=v"
);
meet!(everybody_meets_everybody, [], [], "refused GET /");
meet!(
    different_headers_meet_with_a_note,
    ["Coder=Bob"],
    ["X-Team=red"],
    "note GET / Coder: Bob X-Team: red"
);
meet!(
    different_values_never_meet,
    ["Coder=Bob"],
    ["Coder=Alice"],
    "never"
);

// Values.
meet!(
    equal_values_meet,
    ["Coder=Bob"],
    ["coder=Bob"],
    "refused GET / coder: Bob"
);
meet!(values_differ_in_case, ["Coder=Bob"], ["Coder=bob"], "never");
meet!(
    a_flag_for_any_case_meets_both_cases,
    ["Coder=Bob"],
    ["Coder=(?i)bOB"],
    "refused GET / Coder: Bob"
);
meet!(
    an_escaped_text_is_a_text,
    ["Coder=a.b"],
    [r"Coder=a\.b"],
    "refused GET / Coder: a.b"
);
meet!(
    regexes_with_a_common_word_meet,
    ["C=a+b*"],
    ["C=(ab)+"],
    "refused GET / C: ab"
);
meet!(
    regexes_without_a_common_word_never_meet,
    ["C=a+b"],
    ["C=(ab)*"],
    "refused GET / C: ab"
);
meet!(
    regexes_of_odd_and_even_length_never_meet,
    ["C=(aa)*"],
    ["C=a(aa)*"],
    "never"
);
meet!(
    a_regex_matches_entirely,
    ["C=.*ob"],
    ["C=Bob.+"],
    "refused GET / C: Bobob"
);
meet!(
    the_shortest_readable_word_is_shown,
    ["C=.*"],
    ["C=[^a]*"],
    "refused GET / C: b"
);
meet!(
    a_word_is_never_empty_where_it_can_be_longer,
    ["C=a*"],
    ["C=[ab]*"],
    "refused GET / C: a"
);
meet!(
    an_empty_value_is_a_value,
    ["C=a*"],
    ["C=b*"],
    "refused GET / C: "
);
meet!(
    a_blank_at_the_end_cannot_be_sent,
    ["C=a +"],
    ["C=a *.?"],
    "never"
);
meet!(only_blanks_cannot_be_sent, ["C= +"], ["C= *"], "never");
meet!(
    a_blank_inside_can_be_sent,
    ["C=a +b?"],
    ["C=a +.?"],
    "refused GET / C: a b"
);
meet!(
    word_boundaries_count,
    [r"C=a\b.b"],
    ["C=a[b-]b"],
    "refused GET / C: a-b"
);
meet!(word_boundaries_part, [r"C=a\Bbb"], ["C=a[-]b"], "never");
meet!(
    control_characters_cannot_be_sent,
    [r"C=a\n"],
    [r"C=a\s"],
    "never"
);
meet!(
    a_tab_inside_cannot_be_shown,
    [r"C=a\tb"],
    [r"C=a[\t\n]b"],
    "refused ?"
);
meet!(
    what_only_text_beyond_ascii_matches_may_meet,
    [r"C=[^\x00-\x7f]+"],
    [r"C=[^\x01-\x7f]"],
    "refused ?"
);
meet!(
    patterns_beyond_ascii_may_meet,
    ["C=ö+"],
    ["C=a+"],
    "refused ?"
);
meet!(
    texts_beyond_ascii_are_compared,
    ["C=Zoë"],
    ["C=Zoe"],
    "never"
);

// Several conditions on one key.
meet!(
    three_conditions_on_a_header_have_a_common_word,
    ["C=[abc]+", "C=.*b.*"],
    ["C=...", "C=c.*"],
    "refused GET / C: cab"
);
meet!(
    three_conditions_on_a_header_have_no_common_word,
    ["C=[abc]+", "C=.*b.*"],
    ["C=d.*"],
    "never"
);
meet!(
    an_intercept_that_contradicts_itself_meets_nothing,
    ["C=a", "C=b"],
    ["X=1"],
    "never"
);
meet!(
    an_intercept_that_contradicts_itself_by_regex_meets_nothing,
    ["C=a+", "C=b+"],
    [],
    "never"
);

// Baggage.
meet!(
    baggage_keys_meet_like_headers,
    ["@dev=b.*"],
    ["@dev=.*ob"],
    "refused GET / baggage: dev=bob"
);
meet!(
    baggage_keys_differ_in_case,
    ["@dev=bob"],
    ["@Dev=bob"],
    "note GET / baggage: Dev=bob,dev=bob"
);
meet!(
    a_baggage_key_is_no_header,
    ["@dev=bob"],
    ["dev=alice"],
    "note GET / dev: alice baggage: dev=bob"
);
meet!(
    a_baggage_value_may_need_encoding,
    ["@dev= +,"],
    ["@dev=.*[,;]"],
    "refused GET / baggage: dev=%20%2C"
);
meet!(
    the_header_baggage_beside_a_key_may_meet,
    ["baggage=.*x=1.*"],
    ["@dev=bob"],
    "note ?"
);
meet!(
    the_header_baggage_alone_is_a_header,
    ["baggage=.*x=1"],
    ["baggage=y=2.*"],
    "refused GET / baggage: y=2x=1"
);

// Paths.
meet!(
    equal_paths_meet,
    ["equal /a"],
    ["equal /a", "C=b"],
    "refused GET /a C: b"
);
meet!(
    different_paths_never_meet,
    ["equal /a"],
    ["equal /b"],
    "never"
);
meet!(
    a_prefix_meets_a_path_below_it,
    ["prefix /api"],
    ["equal /apix"],
    "refused GET /apix"
);
meet!(
    a_prefix_never_meets_a_path_beside_it,
    ["prefix /api"],
    ["equal /ap"],
    "never"
);
meet!(
    a_prefix_meets_a_longer_one,
    ["prefix /api"],
    ["prefix /api/v2"],
    "refused GET /api/v2"
);
meet!(
    prefixes_beside_each_other_never_meet,
    ["prefix /api"],
    ["prefix /app"],
    "never"
);
meet!(
    a_path_regex_needs_no_slash,
    ["regex (staging-)?api/.*"],
    ["prefix /stag"],
    "refused GET /staging-api/"
);
meet!(
    a_path_regex_matches_entirely,
    ["regex api/.*"],
    ["prefix /v1"],
    "never"
);
meet!(
    a_path_regex_meets_an_equal_path,
    ["regex /(staging-)?api/.*"],
    ["equal /api/x"],
    "refused GET /api/x"
);
meet!(
    path_regexes_meet,
    ["regex /a+"],
    ["regex a.?b?"],
    "refused GET /a"
);
meet!(path_regexes_part, ["regex /a+"], ["regex b+"], "never");
meet!(
    a_path_always_begins_with_a_slash,
    ["regex a?"],
    ["regex /?b?"],
    "refused GET /"
);
meet!(
    a_path_has_no_query,
    [r"regex /a\?.*"],
    ["regex .*"],
    "never"
);
meet!(a_path_has_no_blank, ["regex /a .*"], ["prefix /a"], "never");
meet!(
    paths_part_where_headers_meet,
    ["C=a", "equal /a"],
    ["C=a", "equal /b"],
    "never"
);
meet!(
    a_path_beyond_ascii_may_meet_a_regex,
    ["prefix /ä"],
    ["regex /.b"],
    "refused ?"
);

// Pseudo-headers and values with special meanings.
meet!(
    methods_meet_in_a_usual_one,
    [":method=P.*"],
    [":method=[^O]*"],
    "refused PUT /"
);
meet!(methods_part, [":method=GET"], [":method=POST"], "never");
meet!(
    methods_are_tokens,
    [":method=a b"],
    [":method=a b"],
    "never"
);
meet!(
    an_unusual_method_is_found,
    [":method=X+"],
    [":method=.."],
    "refused XX /"
);
meet!(
    an_authority_is_a_header,
    [":authority=orders.*"],
    ["C=1"],
    "note GET / :authority: orders C: 1"
);
meet!(
    a_mirrored_request_matches_nothing,
    [":authority=orders-shadow"],
    [],
    "never"
);
meet!(
    a_whole_path_meets_a_path,
    [":path=/api/.*"],
    ["prefix /api/v"],
    "refused GET /api/v"
);
meet!(
    a_whole_path_with_a_query_meets_its_path,
    [":path=/a\\?x=1"],
    ["equal /a"],
    "refused GET /a?x=1"
);
meet!(
    a_whole_path_with_a_query_parts_from_another_path,
    [":path=/a\\?x=1"],
    ["equal /b"],
    "never"
);
meet!(
    a_whole_path_that_only_a_query_fulfils_may_meet,
    [r":path=/a\?x=\d+"],
    ["equal /a"],
    "refused ?"
);
meet!(
    a_probe_is_not_for_everybody,
    [r"user-agent=kube-probe/1\.34"],
    [],
    "never"
);
meet!(
    a_probe_is_for_those_who_name_it,
    ["user-agent=kube-probe/.*"],
    ["user-agent=.*/1"],
    "refused GET / user-agent: kube-probe/1"
);
meet!(
    a_shortest_word_that_is_a_probe_may_meet_everybody,
    ["user-agent=kube-probe/.*"],
    [],
    "refused ?"
);

#[test]
fn the_note_names_who_wins_as_the_core_decides_it() {
    let winner = |other: &[&str], mine: &[&str]| match meeting(other, mine).unwrap().kind {
        Kind::Note { winner } => winner,
        Kind::Refused => panic!("refused"),
    };
    assert_eq!(winner(&["A=1"], &["B=2"]), "mine", "by name");
    assert_eq!(winner(&["A=1", "C=3"], &["B=2"]), "other", "by conditions");
    assert_eq!(
        winner(&["A=1", "equal /a"], &["B=2", "prefix /a"]),
        "other",
        "by path"
    );
}

#[test]
fn only_what_can_take_a_request_now_is_considered() {
    let mine = intercept(&["Coder=Bob"]);
    let met = |name: &str, change: fn(&mut Intercept)| {
        let mut other = intercept(&["Coder=Bob"]);
        change(&mut other);
        check(&document([(name.to_owned(), other)]), "mine", &mine, NOW).len()
    };
    assert_eq!(met("other", |_| ()), 1);
    assert_eq!(met("mine", |_| ()), 0, "itself");
    assert_eq!(met("other", |other| other.port = 9090), 0, "another port");
    assert_eq!(met("other", |other| other.expires = NOW), 0, "expired");
    assert_eq!(
        met("other", |other| other.expires = NOW + 1),
        1,
        "expires in a second"
    );
    assert_eq!(
        met("other", |other| other.cluster = "mine".to_owned()),
        0,
        "left out by the filter"
    );
}

#[test]
fn a_meeting_names_the_other_and_who_claims_it() {
    let others = ["b", "a"].map(|name| (name.to_owned(), intercept(&["C=a"])));
    let meetings = check(&document(others), "mine", &intercept(&["C=.*"]), NOW);
    let names: Vec<_> = meetings
        .iter()
        .map(|meeting| (meeting.other.as_str(), meeting.owner.as_str()))
        .collect();
    assert_eq!(
        names,
        [("a", "alice@example.com"), ("b", "alice@example.com")]
    );
}

#[test]
fn an_operators_limits_do_not_hide_a_meeting() {
    // What the limits forbid today may be allowed tomorrow, while both leases run.
    let mut document = document([("other".to_owned(), everybody())]);
    document.limits.header_names = Some(Vec::new());
    assert_eq!(check(&document, "mine", &intercept(&["C=a"]), NOW).len(), 1);
}

macro_rules! shown {
    ($test:ident, $conditions:expr, $expected:expr) => {
        #[test]
        fn $test() {
            let intercept = intercept(&$conditions);
            let example = example(&intercept).expect("no example");
            assert_eq!(line(&example), $expected);
            assert_eq!(
                matching(&Table::from(&example), &[("mine", &intercept)]),
                ["mine"]
            );
        }
    };
}

shown!(
    an_example_spells_names_as_written,
    ["Personal-Intercept=126a72c7-be8b"],
    "GET / Personal-Intercept: 126a72c7-be8b"
);
shown!(
    an_example_has_the_prefix_as_its_path,
    ["prefix /api", "Coder=Bob"],
    "GET /api Coder: Bob"
);
shown!(
    an_example_has_the_equal_path,
    ["equal /api/version"],
    "GET /api/version"
);
shown!(
    an_example_has_the_shortest_path,
    ["regex (staging-)?api/.*"],
    "GET /api/"
);
shown!(an_example_prefers_letters, ["C=.{3}"], "GET / C: aaa");
shown!(
    example_reads_dots_as_dots,
    [
        ":authority=bob.shop.example.com",
        r"V=1\.2.x",
        "regex api/v1.0"
    ],
    "GET /api/v1.0 :authority: bob.shop.example.com V: 1.2.x"
);
shown!(
    an_example_prefers_digits_to_punctuation,
    ["C=[!-9]"],
    "GET / C: 0"
);
shown!(
    an_example_fulfils_every_condition,
    ["C=[a-f0-9]{4}", "C=.*7.*", "@k=x y", ":method=POST"],
    "POST / C: aaa7 baggage: k=x%20y"
);
shown!(
    an_example_may_have_a_text_beyond_ascii,
    ["C=Zoë"],
    "GET / C: Zoë"
);

#[test]
fn there_is_no_example_where_none_can_be_told() {
    for conditions in [
        &["C=ö+"][..],
        &["C=a", "C=b"],
        &[":authority=a-shadow"],
        &[r"C=\n"],
    ] {
        assert_eq!(example(&intercept(conditions)), None, "{conditions:?}");
    }
}

#[test]
fn a_search_that_reaches_its_bounds_may_meet() {
    let mut work = Work::new(10);
    let (one, two) = (
        intercept(&["C=[ab]*a[ab]{9}"]),
        intercept(&["C=[ab]*b[ab]{9}"]),
    );
    let document = document([("other".to_owned(), one)]);
    let meetings = check_within(&mut work, &document, "mine", &two, NOW);
    assert_eq!(meetings.len(), 1);
    assert_eq!(meetings[0].example, None);
    assert_eq!(work.left, 0);
    assert_eq!(
        check(&document, "mine", &two, NOW),
        [],
        "with enough room the answer is known"
    );
}

#[test]
fn a_search_that_reached_its_bounds_is_not_repeated() {
    let mut work = Work::new(STATES_PER_CHECK);
    let (one, two) = (
        intercept(&["C=[ab]*a[ab]{14}"]),
        intercept(&["C=[ab]*b[ab]{14}"]),
    );
    let document = document([("other".to_owned(), one)]);
    let meetings = check_within(&mut work, &document, "mine", &two, NOW);
    assert_eq!(meetings.len(), 1);
    // One search for a word of any letters, and one for a word that can be shown.
    assert_eq!(work.visited, 2 * STATES_PER_SEARCH);
}

/// A pattern that bypassed validation must not slow down other users' commands.
#[test]
fn a_pattern_that_the_filter_refuses_for_its_length_costs_nothing() {
    let names: String = (0..100_000).map(|n| format!("(?<a{n}>)")).collect();
    for written in ["(?".repeat(600_000), "a.".repeat(600_000), names] {
        let document = document(
            ["C=", "@k=", "regex "]
                .into_iter()
                .zip(0..)
                .map(|(kind, n)| {
                    let condition = format!("{kind}{written}");
                    (format!("dev-{n}"), intercept(&[&condition]))
                }),
        );
        for mine in [&["C=a.*"][..], &["@k=a.*"], &["regex a.*"], &[]] {
            assert_eq!(check(&document, "mine", &intercept(mine), NOW), []);
        }
    }
}

fn thousand(value: impl Fn(usize) -> String) -> Document {
    document((0..1_000).map(|n| {
        (
            format!("dev-{n}"),
            intercept(&[&format!("Coder={}", value(n)), "prefix /api"]),
        )
    }))
}

#[test]
fn a_thousand_regexes_cost_a_bounded_number_of_states() {
    let document = thousand(|n| format!("(user|dev)-{n}-[a-z]+(@example\\.com)?"));
    let mut work = Work::new(STATES_PER_CHECK);
    let mine = intercept(&["Coder=(user|dev)-77[0-9]-[a-f]+", "regex /api/.*"]);
    let meetings = check_within(&mut work, &document, "mine", &mine, NOW);
    assert_eq!(meetings.len(), 10);
    assert!(work.visited < 40_000, "{}", work.visited);
}

#[test]
fn a_thousand_exact_values_cost_no_search() {
    let document = thousand(|n| format!("dev-{n}"));
    let mut work = Work::new(STATES_PER_CHECK);
    assert_eq!(
        check_within(
            &mut work,
            &document,
            "mine",
            &intercept(&["Coder=dev-7"]),
            NOW
        )
        .len(),
        1
    );
    assert_eq!(
        check_within(
            &mut work,
            &document,
            "mine",
            &intercept(&["Coder=.*-7[0-9]"]),
            NOW
        )
        .len(),
        10
    );
    assert_eq!(work.visited, 0);
}

#[test]
fn meeting_a_thousand_regexes_that_all_meet_costs_no_search() {
    let document = thousand(|n| format!("(user|dev)-{n}-[a-z]+(@example\\.com)?"));
    for mine in [&[][..], &["Coder=.*-[a-z].*"], &["X-Team=r.d"]] {
        let mut work = Work::new(STATES_PER_CHECK);
        let meetings = check_within(&mut work, &document, "mine", &intercept(mine), NOW);
        assert_eq!(meetings.len(), 1_000, "{mine:?}");
        assert!(meetings.iter().all(|meeting| meeting.example.is_some()));
        assert_eq!(work.visited, 0, "{mine:?}");
    }
}

#[test]
fn most_of_what_has_nothing_in_common_is_told_apart_at_a_glance() {
    let theirs = "(user|dev)-17-[a-z]+(@example\\.com)?";
    for (mine, expected) in [
        // Distinguished by prefix, suffix and letters.
        ("nobody-[0-9]+", true),
        ("(user|dev)-18-[a-f]+", true),
        ("(user|dev)-17", true),
        ("[a-z]+-[0-9]+", true),
        (".*[a-z]!", true),
        (".*!x.*", true),
        ("[a-z]{9}", true),
        ("(user|dev)-17-[a-f]+", false),
        ("(user|dev)-.*", false),
        (".*com", false),
        (".*", false),
        // Distinguished by a search only.
        (".*-71-.*", false),
    ] {
        let [mine_marks, their_marks] =
            [mine, theirs].map(|pattern| Marks::new(syntax::read(pattern).unwrap()));
        assert_eq!(mine_marks.are_apart(&their_marks), expected, "{mine}");
        assert_eq!(their_marks.are_apart(&mine_marks), expected, "{mine}");
    }
}

/// Patterns over {a, b}, and sometimes with other letters.
fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "", "a", "b", ".", "[ab]", "[^a]", "ab", r"\b", "[^ab]",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| parts.concat()),
            (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("(?:{one}|{two})")),
            (
                inner,
                prop::sample::select(vec!["*", "+", "?", "{2}", "{1,3}", "{0,2}"])
            )
                .prop_map(|(one, times)| format!("(?:{one}){times}")),
        ]
    })
}

fn path() -> impl Strategy<Value = Option<MatchPath>> {
    let text = || prop::sample::select(vec!["/", "/a", "/ab", "/b"]).prop_map(str::to_owned);
    prop_oneof![
        Just(None),
        text().prop_map(|text| Some(MatchPath::Equal(text))),
        text().prop_map(|text| Some(MatchPath::Prefix(text))),
        pattern().prop_map(|pattern| Some(MatchPath::Regex(pattern))),
    ]
}

fn any_intercept() -> impl Strategy<Value = Intercept> {
    let header =
        (prop::sample::select(vec!["x", "X", "y"]), pattern()).prop_map(|(name, value)| {
            MatchHeader {
                name: name.to_owned(),
                value,
            }
        });
    let member = pattern().prop_map(|value| MatchBaggage {
        key: "k".to_owned(),
        value,
    });
    (
        prop::collection::vec(header, 0..3),
        prop::collection::vec(member, 0..2),
        path(),
    )
        .prop_map(|(headers, baggage, path)| Intercept {
            headers,
            baggage,
            path,
            ..everybody()
        })
        .prop_filter("one that the filter takes", |intercept| {
            intercept_core::validate("any", intercept, &unlimited()).is_ok()
        })
}

/// All words over {a, b, c} up to this length.
fn words(length: usize) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut longest = words.clone();
    for _ in 0..length {
        longest = longest
            .iter()
            .flat_map(|word| ["a", "b", "c"].map(|letter| format!("{word}{letter}")))
            .collect();
        words.extend(longest.iter().cloned());
    }
    words
}

/// Does a small request match both?
///
/// The parts of a request are independent, so each one is tried with the other conditions removed.
fn brute_force(one: &Intercept, two: &Intercept) -> bool {
    let part = |keep: &dyn Fn(&Intercept) -> Intercept,
                request: &dyn Fn(&str) -> (String, String)| {
        let (one, two) = (keep(one), keep(two));
        words(4).iter().any(|word| {
            let mut headers = vec![request(word)];
            if headers[0].0 != ":path" {
                headers.push((":path".to_owned(), "/".to_owned()));
            }
            matching(&Table(headers), &[("one", &one), ("two", &two)]).len() == 2
        })
    };
    let only_header = |name: &'static str| {
        move |from: &Intercept| {
            let headers = from
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case(name))
                .cloned();
            Intercept {
                headers: headers.collect(),
                ..everybody()
            }
        }
    };
    part(&only_header("x"), &|word| ("x".to_owned(), word.to_owned()))
        && part(&only_header("y"), &|word| ("y".to_owned(), word.to_owned()))
        && part(
            &|from| Intercept {
                baggage: from.baggage.clone(),
                ..everybody()
            },
            &|word| ("baggage".to_owned(), format!("k={word}")),
        )
        && part(
            &|from| Intercept {
                path: from.path.clone(),
                ..everybody()
            },
            &|word| (":path".to_owned(), format!("/{word}")),
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn what_brute_force_finds_is_found(one in any_intercept(), two in any_intercept()) {
        let found = check(&document([("one".to_owned(), one.clone())]), "two", &two, NOW);
        prop_assert!(!found.is_empty() || !brute_force(&one, &two), "{one:?} {two:?}");
    }

    #[test]
    fn what_is_found_matches_both_and_is_called_what_the_contract_calls_it(one in any_intercept(), two in any_intercept()) {
        if let Some(meeting) = check(&document([("one".to_owned(), one.clone())]), "two", &two, NOW).pop() {
            let example = meeting.example.expect("small patterns always have an example");
            let both = matching(&Table::from(&example), &[("one", &one), ("two", &two)]);
            prop_assert_eq!(both.len(), 2, "{:?}", example);
            let names = |intercept: &Intercept| -> std::collections::BTreeSet<String> {
                let headers = intercept.headers.iter().map(|header| header.name.to_lowercase());
                headers.chain(intercept.baggage.iter().map(|member| format!("@{}", member.key))).collect()
            };
            let (first, second) = (names(&one), names(&two));
            let expected = if first.is_subset(&second) || second.is_subset(&first) {
                Kind::Refused
            } else {
                Kind::Note { winner: both[0].clone() }
            };
            prop_assert_eq!(meeting.kind, expected);
        }
    }

    #[test]
    fn what_the_syntax_tells_is_what_a_search_finds(pattern in pattern()) {
        const LETTERS: &[u8] = b"cba -";
        let read = syntax::read(&pattern).expect("valid");
        if let Some(word) = shortest_word(&read, LETTERS) {
            let automaton = Automaton::new(&syntax::anchored(read)).expect("small");
            let space = Space { from: b"", letters: LETTERS, outer_blanks: false };
            let found = common_word(&[&automaton], &space, &mut Work::new(STATES_PER_CHECK));
            prop_assert_eq!(found, Common::Word(word));
        }
    }

    #[test]
    fn what_is_told_apart_at_a_glance_has_no_common_word(patterns in [pattern(), pattern()], is_path in any::<bool>()) {
        let read = patterns.map(|pattern| {
            let read = syntax::read(&pattern).expect("valid");
            if is_path { syntax::path(read) } else { read }
        });
        let [one, two] = read.each_ref().map(|read| Marks::new(read.clone()));
        if one.are_apart(&two) {
            let automata = read.map(|read| Automaton::new(&syntax::anchored(read)).expect("small"));
            let letters: Vec<u8> = (0..=automaton::BEYOND_ASCII).collect();
            let space = Space { from: b"", letters: &letters, outer_blanks: true };
            let found = common_word(&automata.each_ref(), &space, &mut Work::new(STATES_PER_CHECK));
            prop_assert_eq!(found, Common::Nothing);
        }
    }

    #[test]
    fn an_example_matches_its_intercept(intercept in any_intercept()) {
        if let Some(example) = example(&intercept) {
            prop_assert_eq!(matching(&Table::from(&example), &[("mine", &intercept)]), ["mine"]);
        } else {
            prop_assert!(!brute_force(&intercept, &intercept));
        }
    }
}

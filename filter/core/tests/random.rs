//! Many random configurations and requests.
//!
//! Parse, compile and decide terminate, agree with `explain`, and never panic.
//!
//! `make fuzz` runs it at length; `FUZZ_ROUNDS` is the number of configurations. Deterministic: `FUZZ_SEED` sets another seed.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod requests;

use intercept_core::{Bypass, Matcher, Verdict, parse};
use requests::{NOW, Table};

/// Decisions for each configuration.
const DECISIONS: u64 = 10;

/// SplitMix64, which is good enough here.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len() as u64) as usize]
    }

    fn some(&mut self, of: &[&str], most: u64) -> String {
        (0..self.below(most + 1)).map(|_| self.one(of)).collect()
    }
}

const NAMES: &[&str] = &[
    "coder",
    "Coder",
    "team",
    ":method",
    ":authority",
    "host",
    "baggage",
    "user-agent",
    "x-intercept-via",
    "x y",
    "",
];
const VALUES: &[&str] = &[
    "Bob", "a", "b", ".", "*", "+", "?", "{2}", "{0,9}", "{", "(", ")", "|", "[ab]", "[^", "]",
    r"\\d", r"\\", "(?i)", "(?x)", " ", "^", "$", ",", "ü", "\\u0000", "\\n",
];
const PATHS: &[&str] = &[
    "/", "a", "api", "/api", "?", "#", "b", ".*", "(", "<", "%20",
];
const BYTES: &[&[u8]] = &[
    b"Bob",
    b"a",
    b"b",
    b"ab",
    b",",
    b" ",
    b"\xff",
    b"\xc3\xbc",
    b"k=",
    b";x=1",
    b"%62",
    b"%",
    b"kube-probe/1",
    b"-shadow",
    b":80",
    b"ann",
    b"9",
    b"\0",
];

/// A random configuration, usually with the right structure.
fn configuration(random: &mut Random) -> Vec<u8> {
    let condition = |random: &mut Random, key: &str, names: &[&str]| {
        let value = match random.below(3) {
            0 => random.some(VALUES, 4),
            _ => random
                .one(&["Bob", "B.*", ".*", "Bob|a", "[a-zB]+"])
                .to_owned(),
        };
        let name = match random.below(4) {
            0 => random.one(names),
            _ => names[0],
        };
        format!(r#"{{"{key}": "{name}", "value": "{value}"}}"#)
    };
    let mut entries = Vec::new();
    for name in ["bob", "ann", "zoe", "bob", "Bad"]
        .iter()
        .take(random.below(6) as usize)
    {
        let headers: Vec<_> = (0..random.below(3))
            .map(|_| condition(random, "name", NAMES))
            .collect();
        let baggage: Vec<_> = (0..random.below(2))
            .map(|_| condition(random, "key", &["k", "l", ""]))
            .collect();
        let path = match random.below(2) {
            0 => String::new(),
            _ => format!(
                r#", "path": {{"{}": "/{}"}}"#,
                random.one(&["equal", "prefix", "prefix", "regex", "regex", "glob"]),
                random.some(PATHS, 2)
            ),
        };
        let port = random.one(&["8080", "8080", "8080", "8080", "8080", "9090", "0", "70000"]);
        let expires = random.one(&[
            "1000060", "1000060", "1000060", "1000060", "5", "9999999", "-1",
        ]);
        entries.push(format!(
            r#""{name}": {{"port": {port}, "cluster": "intercept|{name}", "address": "{}", "owner": "{name}", "created": 0, "expires": {expires},
            "headers": [{}], "baggage": [{}]{path}}}"#,
            "0".repeat(32), headers.join(","), baggage.join(",")
        ));
    }
    let version = random.one(&["1", "1", "1", "1", "1", "1", "1", "1", "1", "2", "\"1\""]);
    let limits = random.one(&[
        r#""limits": {"allow_all": true}, "#,
        r#""limits": {"allow_all": true}, "#,
        r#""limits": {"allow_all": true}, "#,
        r#""limits": {"header_names": ["coder"]}, "#,
        "",
    ]);
    let mut json = format!(
        r#"{{"version": {version}, {limits}"intercepts": {{{}}}}}"#,
        entries.join(",")
    )
    .into_bytes();
    // Sometimes bytes that are invalid JSON or UTF-8.
    for _ in 0..random.below(16).saturating_sub(13) {
        let place = random.below(json.len() as u64) as usize;
        json[place] = random.next() as u8;
    }
    json
}

fn request(random: &mut Random) -> Table {
    let names = [
        "coder",
        "team",
        ":method",
        ":authority",
        "baggage",
        "user-agent",
        "x-intercept-via",
    ];
    let value = |random: &mut Random| -> Vec<u8> {
        let parts = (0..random.below(4)).map(|_| BYTES[random.below(BYTES.len() as u64) as usize]);
        parts.collect::<Vec<_>>().concat()
    };
    let mut headers = Vec::new();
    for name in names {
        for _ in 0..random.below(3) {
            let value = match (name, random.below(3)) {
                ("coder", 0) => b"Bob".to_vec(),
                ("x-intercept-via", 1..) | (":authority", 1..) => continue,
                _ => value(random),
            };
            headers.push((name.to_owned(), value));
        }
    }
    let path = [b"/", value(random).as_slice()].concat();
    headers.push((":path".to_owned(), path));
    Table {
        headers,
        port: if random.below(4) == 0 { 9090 } else { 8080 },
        now: NOW,
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_configurations_and_requests() {
    let rounds = setting("FUZZ_ROUNDS", 3_000);
    let seed = setting("FUZZ_SEED", 0);
    let (mut compiled, mut matched, mut bypassed) = (0_u64, 0_u64, 0_u64);
    for round in 0..rounds {
        let mut random = Random(seed.wrapping_add(round));
        let json = configuration(&mut random);
        let (config, mut rejected) = parse(&json);
        let (matcher, more) = Matcher::compile(config);
        rejected.extend(more);
        assert!(
            rejected
                .iter()
                .all(|one| !one.log_line().is_empty() && one.log_line().len() < 210)
        );
        compiled += matcher.intercepts().len() as u64;
        for _ in 0..DECISIONS {
            let request = request(&mut random);
            let outcome = matcher.decide(&request);
            let explained = matcher.explain(&request);
            let verdict = |wanted| {
                explained
                    .iter()
                    .find(|one| one.verdict == wanted)
                    .map(|one| one.intercept)
            };
            let what = || {
                format!(
                    "round {round}: {}\n{request:?}",
                    String::from_utf8_lossy(&json)
                )
            };
            assert_eq!(
                outcome.intercept.map(|one| one.name()),
                verdict(Verdict::Wins),
                "{}",
                what()
            );
            let is_bypassed = matches!(outcome.bypass, Some(Bypass::Loop | Bypass::Target));
            assert_eq!(
                is_bypassed,
                verdict(Verdict::Bypassed).is_some(),
                "{}",
                what()
            );
            matched += u64::from(outcome.intercept.is_some());
            bypassed += u64::from(is_bypassed);
        }
    }
    println!(
        "{rounds} configurations with {compiled} intercepts, {} decisions: {matched} matched, {bypassed} bypassed",
        rounds * DECISIONS
    );
    // Random input must get far enough to prove something.
    assert!(compiled > rounds / 4, "{compiled} of {rounds}");
    assert!(
        matched > rounds / 10 && bypassed > rounds / 100,
        "{matched} {bypassed} of {rounds}"
    );
}

//! Compares requests and responses through an intercept with those of a pod.
//!
//! Each case is sent through one Envoy unmatched and matched, and compared byte for byte. The allowed differences are one list, equal to that of `docs/reference.md`.

use std::collections::BTreeSet;
use std::sync::Arc;

use harness::fidelity::{
    Case, Deviation, Kind, Pair, Received, Side, Stage, What, answers, bytes, requests,
};
use intercept_core::target::{carries_authority, carries_path};

/// An allowed difference.
struct Difference {
    /// The text in `docs/reference.md`.
    what: &'static str,
    /// The reason.
    why: &'static str,
    covers: fn(&Pair, &Deviation) -> bool,
}

/// Headers between filter, relay and developer's end.
const OURS: [&str; 8] = [
    "x-intercept",
    "x-intercept-address",
    "x-intercept-cluster",
    "x-intercept-error",
    "x-intercept-lost",
    "x-intercept-served-by",
    "x-intercept-unavailable",
    "x-intercept-via",
];

/// The allowed differences.
const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "the answer has `x-intercept` and `x-intercept-served-by`",
        why: "they say which intercept matched and whose machine answered",
        covers: |_, deviation| {
            deviation.side == Side::Response
                && is_added(deviation, &["x-intercept", "x-intercept-served-by"])
        },
    },
    Difference {
        what: "the request has one line of `x-intercept-via` more",
        why: "a request that comes back to where it was intercepted goes to the cluster",
        covers: |_, deviation| {
            let via = "x-intercept-via".to_owned();
            deviation.side == Side::Request
                && [What::Added(via.clone()), What::Values(via)].contains(&deviation.what)
        },
    },
    Difference {
        what: "headers and trailers with one of these names do not pass: `x-intercept`, `x-intercept-address`, `x-intercept-cluster`, `x-intercept-error`, `x-intercept-lost`, `x-intercept-served-by`, `x-intercept-unavailable`, and in answers `x-intercept-via`",
        why: "filter, relay and command communicate with them, and no other program may",
        covers: |_, deviation| match &deviation.what {
            What::Missing(name) | What::Values(name) => {
                OURS.contains(&name.trim_start_matches("trailer "))
            }
            _ => false,
        },
    },
    Difference {
        what: "header lines with different names may come in another order",
        why: "it means nothing (RFC 9110 section 5.3); lines of one name keep theirs",
        covers: |_, deviation| deviation.what == What::Order,
    },
    Difference {
        what: "a WebSocket is asked for anew: HTTP/1.1 on every port, with a `Sec-WebSocket-Key` if the client sent none, `Connection` and `Upgrade` in our spelling",
        why: "the tunnel carries it as two bodies, which have none of them",
        covers: |pair, deviation| is_websocket(&pair.case) && is_of_an_upgrade(deviation),
    },
    Difference {
        what: "a request [whose target the tunnel cannot carry](#fallback) goes to the cluster",
        why: "the tunnel's HTTP library refuses what Envoy takes",
        covers: |pair, deviation| deviation.what == What::LeftToCluster && !is_carried(pair),
    },
    Difference {
        what: "a mirrored request (its host ends in `-shadow`) goes to the cluster",
        why: "it is a copy, and its answer is discarded",
        covers: |pair, deviation| {
            deviation.what == What::LeftToCluster && target(pair).1.ends_with(b"-shadow")
        },
    },
    Difference {
        what: "on a port without a protocol your server is asked in HTTP/1.1, where a request has no trailers, and for gRPC in HTTP/2; a pod is asked in what the client speaks",
        why: "few servers on a developer machine speak HTTP/2 without TLS, and every gRPC server does",
        covers: |pair, deviation| {
            pair.case.kind == Kind::Auto
                && is_of_another_version(pair)
                && deviation.side == Side::Request
                && match &deviation.what {
                    What::Version | What::End => true,
                    What::Missing(name) => name.starts_with("trailer "),
                    What::Values(name) => name == ":scheme",
                    _ => false,
                }
        },
    },
    Difference {
        what: "an answer's `TE` does not pass, and a line of it that is folded (RFC 9112 section 5.2) is joined by one space",
        why: "the HTTP libraries of the tunnel do so; Envoy keeps a tab there",
        covers: |_, deviation| {
            deviation.side == Side::Response
                && (is_missing(deviation, &["te"])
                    || deviation.what == What::Values("x-folded".to_owned()))
        },
    },
    Difference {
        what: "what is no valid answer may be repaired; otherwise [the fallback](#fallback) takes the place of Envoy's own `502` or `503`, or of what Envoy makes of it",
        why: "the answer is read by other HTTP libraries as well",
        covers: |pair, deviation| {
            let is_of_the_fallback = matches!(
                deviation.what,
                What::LeftToCluster | What::Count | What::Interim
            );
            // The valid part in the same read, which Envoy discards.
            let is_of_a_chunk =
                deviation.what == What::Body && pair.case.name.contains("a wrong chunk");
            deviation.what == What::NoAnswer
                || is_of_a_chunk
                || is_invalid_answer(&pair.case) && is_of_the_fallback
        },
    },
];

/// Is it a matter of timing?
///
/// Envoy may or may not have forwarded the whole upload when an early response comes, matched or not, and these headers of its own depend on it.
fn is_of_the_moment(pair: &Pair, deviation: &Deviation) -> bool {
    const LINES: &[&str] = &["connection", "x-envoy-upstream-service-time"];
    pair.case.is_early
        && deviation.side == Side::Response
        && (is_added(deviation, LINES) || is_missing(deviation, LINES))
}

fn is_added(deviation: &Deviation, names: &[&str]) -> bool {
    matches!(&deviation.what, What::Added(name) if names.contains(&name.as_str()))
}

fn is_missing(deviation: &Deviation, names: &[&str]) -> bool {
    matches!(&deviation.what, What::Missing(name) if names.contains(&name.as_str()))
}

fn is_websocket(case: &Case) -> bool {
    let name = &case.name;
    name.contains("upgrade: websocket")
        || name.contains("upgrade: WebSocket")
        || name.contains("extended CONNECT to websocket")
}

fn is_of_an_upgrade(deviation: &Deviation) -> bool {
    const NAMES: [&str; 9] = [
        ":method",
        ":protocol",
        ":scheme",
        ":status",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-accept",
        "x-more",
    ];
    match &deviation.what {
        What::Version | What::End => true,
        What::Added(name) | What::Missing(name) | What::Values(name) => {
            NAMES.contains(&name.as_str())
        }
        _ => false,
    }
}

fn is_of_another_version(pair: &Pair) -> bool {
    let version = |received: &[Received]| received.first().map(|first| first.message.version);
    version(&pair.direct.received) != version(&pair.matched.received)
}

/// The target and the host of the request, as Envoy forwarded them.
fn target(pair: &Pair) -> (Vec<u8>, Vec<u8>) {
    let Some(received) = pair.direct.received.first() else {
        return (Vec::new(), Vec::new());
    };
    let message = received.message.neutral();
    let field = |name| message.field(name).unwrap_or_default().to_vec();
    (field(":path"), field(":authority"))
}

fn is_carried(pair: &Pair) -> bool {
    let (path, authority) = target(pair);
    carries_path(&path) && carries_authority(&authority)
}

/// Responses that are not valid HTTP and that Envoy passes on.
///
/// Also a protocol switch without a request for it.
fn is_invalid_answer(case: &Case) -> bool {
    let answers = [
        "099",
        "20",
        "2000",
        "HTTP/1.2",
        "HTTP/2.0 in words",
        "101 that nobody asked for",
    ];
    answers
        .map(|name| format!("answer: {name}"))
        .contains(&case.name)
}

/// All cases, or with `FIDELITY=TEXT` those whose title contains it.
fn cases() -> Vec<Case> {
    let all = [requests::cases(), answers::cases(), bytes::cases()].concat();
    match std::env::var("FIDELITY") {
        Ok(text) => {
            let chosen = all.into_iter();
            chosen.filter(|case| case.title().contains(&text)).collect()
        }
        Err(_) => all,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_the_same_both_ways() {
    let stage = Arc::new(Stage::start().await);
    let cases = cases();
    let count = cases.len();
    let is_whole = std::env::var_os("FIDELITY").is_none();
    assert!(count >= if is_whole { 6_500 } else { 1 }, "{count} cases");
    let pairs = stage.run(cases).await;
    assert_eq!(pairs.len(), count);

    let received = pairs.iter().filter(|pair| !pair.direct.received.is_empty());
    let received = received.count();
    // Too few received requests would prove nothing.
    assert!(received >= if is_whole { 3_500 } else { 0 }, "{received}");

    let mut unknown = Vec::new();
    let mut seen = BTreeSet::new();
    for pair in &pairs {
        for deviation in pair.deviations() {
            if is_of_the_moment(pair, &deviation) {
                continue;
            }
            let covers = |covers: fn(&Pair, &Deviation) -> bool| covers(pair, &deviation);
            let mut allowed = DIFFERENCES.iter().filter(|_| is_whole);
            if let Some(difference) = allowed.find(|difference| covers(difference.covers)) {
                seen.insert(difference.what);
                continue;
            }
            unknown.push(format!("{}: {deviation}", pair.case.title()));
        }
    }
    assert!(unknown.is_empty(), "\n{}", unknown.join("\n"));
    for difference in DIFFERENCES.iter().filter(|_| is_whole) {
        assert!(
            seen.contains(difference.what),
            "seen nowhere: {}",
            difference.what
        );
    }
}

#[test]
fn reference_lists_the_same_differences() {
    const HEADING: &str = "## What differs for an intercepted request\n";
    let reference = std::fs::read_to_string("../docs/reference.md").expect("the reference");
    let (_, section) = reference.split_once(HEADING).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let told: Vec<&str> = rows.skip(1).collect();
    let listed = DIFFERENCES.iter();
    let listed: Vec<String> = listed
        .map(|difference| format!("| {} | {} |", difference.what, difference.why))
        .collect();
    assert_eq!(told, listed);
}

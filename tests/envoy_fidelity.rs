//! What a developer's server receives is what a pod would have received, and its answer reaches the client as a pod's would: each case is sent through one
//! Envoy unmatched and matched, and compared byte for byte. What may differ is one list, equal to that of `docs/reference.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::fidelity::{
    Case, Deviation, Pair, Received, Role, Side, Stage, What, answers, bytes, requests,
};

/// Something that may differ.
struct Difference {
    /// As `docs/reference.md` says it.
    what: &'static str,
    /// Why it is so.
    why: &'static str,
    covers: fn(&Pair, &Deviation) -> bool,
}

/// Headers that speak between filter, relay and developer's end.
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

/// What differs, and may.
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
        what: "the request has `x-intercept-via`",
        why: "a request that comes back to where it was intercepted goes to the cluster",
        covers: |_, deviation| {
            deviation.side == Side::Request && is_added(deviation, &["x-intercept-via"])
        },
    },
    Difference {
        what: "headers and trailers with one of these names do not pass: `x-intercept`, `x-intercept-address`, `x-intercept-cluster`, `x-intercept-error`, `x-intercept-lost`, `x-intercept-served-by`, `x-intercept-unavailable`, `x-intercept-via`",
        why: "filter, relay and command speak with them, and nobody else may",
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
        why: "the tunnel carries it as an extended CONNECT (RFC 8441), which has none of them",
        covers: |pair, deviation| is_websocket(&pair.case) && is_of_an_upgrade(deviation),
    },
    Difference {
        what: "a request whose target or host the tunnel cannot carry goes to the cluster: `\"`, `<`, `>` or bytes that are not UTF-8 in it, for example",
        why: "the tunnel's HTTP library refuses what Envoy takes",
        covers: |pair, deviation| {
            is_left_to_cluster(pair) && !is_carried(pair) && is_of_the_fallback(deviation)
        },
    },
    Difference {
        what: "a mirrored request (its host ends in `-shadow`) goes to the cluster",
        why: "it is a copy, and its answer goes to nobody",
        covers: |pair, deviation| {
            deviation.what == What::LeftToCluster && pair.case.name.contains("orders-shadow")
        },
    },
    Difference {
        what: "what is no valid answer may be repaired; otherwise [the fallback](#fallback) takes the place of Envoy's own `502` or `503`",
        why: "the answer is read by two HTTP libraries more",
        covers: |pair, deviation| {
            deviation.what == What::NoAnswer
                || is_invalid_answer(&pair.case) && is_of_the_fallback(deviation)
        },
    },
];

/// Faults that are known and not mended yet: a name, and which deviations they explain.
struct Fault {
    what: &'static str,
    covers: fn(&Pair, &Deviation) -> bool,
}

const OPEN_FAULTS: &[Fault] = &[
    Fault {
        what: "GET and HEAD lose a body of unknown length",
        covers: |pair, deviation| {
            let lost = ["transfer-encoding", "trailer x-sum", "trailer x-more"];
            deviation.side == Side::Request
                && (matches!(deviation.what, What::Body | What::End | What::Extensions)
                    || is_missing(deviation, &lost))
                || pair.case.name.starts_with("HEAD expects")
        },
    },
    Fault {
        what: "a target that the HTTP library refuses is answered 400, or kills a shared connection",
        covers: |pair, _| {
            let name = &pair.case.name;
            [
                "target ",
                "host ",
                "in the path",
                "in the query",
                "in the method",
            ]
            .iter()
            .any(|text| name.contains(text))
        },
    },
    Fault {
        what: "names that only begin like ours are removed, and so are those inside the tunnel",
        covers: |_, deviation| match &deviation.what {
            What::Missing(name) => name.contains("x-intercept-"),
            _ => false,
        },
    },
    Fault {
        what: "an answer with a folded line is lost",
        covers: |pair, _| pair.case.name.contains("folded"),
    },
    Fault {
        what: "an answer that breaks off behind its head loses it",
        covers: |pair, _| {
            let name = &pair.case.name;
            name.contains("broken off")
                || name.contains("reset ")
                || name.contains("a length that says")
        },
    },
    Fault {
        what: "an early answer is overtaken by a reset",
        covers: |pair, deviation| {
            pair.case.name.contains("early") && deviation.side == Side::Response
        },
    },
    Fault {
        what: "requests without a body get content-length: 0",
        covers: |_, deviation| {
            deviation.side == Side::Request && is_added(deviation, &["content-length"])
        },
    },
    Fault {
        what: "the in-cluster version sees x-intercept-address when it answers in the developer's place",
        covers: |pair, deviation| {
            is_left_to_cluster(pair) && is_added(deviation, &["x-intercept-address"])
        },
    },
    Fault {
        what: "every Expect is removed, not only 100-continue",
        covers: |_, deviation| is_missing(deviation, &["expect"]),
    },
    Fault {
        what: "the scheme is always http",
        covers: |_, deviation| deviation.what == What::Values(":scheme".to_owned()),
    },
    Fault {
        what: "upgrade: WebSocket in other letters is left to the cluster on HTTP/2 ports",
        covers: |pair, _| pair.case.name.contains("upgrade: WebSocket"),
    },
    Fault {
        what: "more is taken for hop-by-hop than Envoy does",
        covers: |_, deviation| is_missing(deviation, &["http2-settings", "x-hop", "te"]),
    },
    Fault {
        what: "a 304 loses its length",
        covers: |pair, deviation| {
            pair.case.name.contains("304") && is_missing(deviation, &["content-length"])
        },
    },
    Fault {
        what: "on ports of no declared protocol HTTP/2 becomes HTTP/1.1, and gRPC on HTTP/1.1 ports HTTP/2",
        covers: |pair, _| {
            let version = |received: &[Received]| {
                let first = received.first();
                first.map(|received| received.message.version)
            };
            let direct = version(&pair.direct.received);
            let matched = version(&pair.matched.received);
            direct != matched
        },
    },
    Fault {
        what: "a trailer that HTTP/2 forbids",
        covers: |pair, _| pair.case.name.contains("a trailer named"),
    },
    Fault {
        what: "a 101 that nobody asked for is lost",
        covers: |pair, _| pair.case.name.contains("101"),
    },
];

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

fn is_left_to_cluster(pair: &Pair) -> bool {
    let mut received = pair.matched.received.iter();
    received.any(|received| received.role == Role::Fallback)
}

/// Until the filter tells: nothing of the kind is known here yet.
fn is_carried(_: &Pair) -> bool {
    true
}

/// Statuses and versions that no HTTP has, and that Envoy passes on.
fn is_invalid_answer(case: &Case) -> bool {
    let answers = ["099", "20", "2000", "HTTP/1.2", "HTTP/2.0 in words"];
    answers
        .map(|name| format!("answer: {name}"))
        .contains(&case.name)
}

/// The developer's server was asked or not, and the in-cluster version answered.
fn is_of_the_fallback(deviation: &Deviation) -> bool {
    let is_request = deviation.side == Side::Request;
    is_request && matches!(deviation.what, What::LeftToCluster | What::Count)
}

/// All cases; with `FIDELITY=TEXT` those whose title contains it, to look at one.
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
    // A comparison of nothing with nothing proves nothing.
    assert!(received >= if is_whole { 3_500 } else { 0 }, "{received}");

    let mut open: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for pair in &pairs {
        for deviation in pair.deviations() {
            let covers = |covers: fn(&Pair, &Deviation) -> bool| covers(pair, &deviation);
            if DIFFERENCES
                .iter()
                .any(|difference| covers(difference.covers))
                && is_whole
            {
                continue;
            }
            let list = match OPEN_FAULTS.iter().find(|fault| covers(fault.covers)) {
                Some(fault) if is_whole => open.entry(fault.what).or_default(),
                _ => &mut unknown,
            };
            list.push(format!("{}: {deviation}", pair.case.title()));
        }
    }
    for fault in OPEN_FAULTS {
        let seen = open.remove(fault.what).unwrap_or_default();
        println!("open: {} ({} times)", fault.what, seen.len());
        for text in seen {
            println!("  {text}");
        }
    }
    assert!(unknown.is_empty(), "\n{}", unknown.join("\n"));
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

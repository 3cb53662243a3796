//! What hostile intercepts, each within its own limits, cost a real Envoy together.
//!
//! A push of its configuration, and a request.
//!
//! Times are CPU times of Envoy's threads, which other programs on the machine do not lengthen. The limits allow for a processor that is three times slower than the one in
//! docs/cost.md.

use std::time::Duration;

use harness::app::App;
use harness::client::Ask;
use harness::mesh::{Mesh, Plan};
use harness::plugin::{NOBODY, document, entry};
use intercept_core::budget::MAX_PER_OWNER;
use intercept_core::pattern::Pattern;
use intercept_core::{Document, Intercept, MatchHeader};

async fn mesh() -> (App, Mesh) {
    let app = App::start("app").await;
    let mesh = Plan::of(&app)
        .relay_at(app.addr())
        .one_worker()
        .start()
        .await;
    (app, mesh)
}

/// The CPU time of a thread of Envoy so far; `None`: of all threads together.
fn computed(mesh: &Mesh, thread: Option<&str>) -> Duration {
    let process = mesh.envoy.process().id();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let times = tasks.filter_map(|task| {
        let task = task.ok()?.path();
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let is_meant = thread.is_none_or(|thread| name.trim() == thread);
        is_meant.then(|| times.split(' ').next()?.parse::<u64>().ok())?
    });
    let nanoseconds = times.sum();
    assert!(nanoseconds > 0, "no such thread: {thread:?}");
    Duration::from_nanos(nanoseconds)
}

/// Envoy's resident memory, in MiB.
fn resident(mesh: &Mesh) -> u64 {
    let status = format!("/proc/{}/status", mesh.envoy.process().id());
    let status = std::fs::read_to_string(status).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes.expect("kB").parse::<u64>().expect("a number") / 1024
}

/// This many entries in one upstream cluster, with as many per owner as are allowed.
///
/// Only the filter's configuration grows.
fn entries(mesh: &Mesh, count: usize, change: impl Fn(usize, &mut Intercept)) -> Document {
    document((0..count).map(|number| {
        let (name, mut entry) = entry(&format!("dev-{number:04}"), mesh.port(), NOBODY, "x", "x");
        entry.owner = format!("owner-{}", number / MAX_PER_OWNER);
        entry.cluster = format!("intercept|{}|dev-0000", mesh.port());
        change(number, &mut entry);
        (name, entry)
    }))
}

fn header(name: String, value: String) -> MatchHeader {
    MatchHeader { name, value }
}

async fn push(mesh: &Mesh, document: &Document) {
    let text = serde_json::to_string(document).expect("JSON");
    mesh.write_plugin(&text).await;
}

/// Kinds of a thousand hostile entries, each within every limit of an entry.
fn hostile(mesh: &Mesh) -> [(&'static str, Document); 4] {
    let conditions = |number: usize, value: &dyn Fn(usize) -> String| {
        let conditions = (0..16).map(|place| header(format!("x{number}-{place}"), value(place)));
        conditions.collect::<Vec<_>>()
    };
    [
        (
            "16 regexes of 8 KiB each",
            entries(mesh, 1_000, |number, entry| {
                entry.headers = conditions(number, &|place| format!(".{{0,84}}x{number}{place}"));
            }),
        ),
        (
            "regexes with 60 groups",
            entries(mesh, 1_000, |_, entry| {
                entry.headers = vec![header("cookie".to_owned(), "()".repeat(60))];
            }),
        ),
        (
            "16 headers of their own",
            entries(mesh, 1_000, |number, entry| {
                entry.headers = conditions(number, &|_| "some value or other".to_owned());
            }),
        ),
        (
            "regexes that are refused",
            entries(mesh, 1_000, |_, entry| {
                entry.headers = vec![header("x".to_owned(), format!("{}(", "[a-f]".repeat(120)))];
            }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_hold_up_no_push() {
    const WORKER: Option<&str> = Some("wrk:worker_0");
    /// The limits are 50 ms and 64 MiB; the rest allows for a slow machine.
    const LONGEST: Duration = Duration::from_millis(150);
    const MOST_MEMORY: u64 = 64;
    let (_app, mesh) = mesh().await;
    let one = entries(&mesh, 1, |_, _| {});
    mesh.write_document(&one).await;
    let before = resident(&mesh);
    for (what, hostile) in hostile(&mesh) {
        let mut longest = Duration::ZERO;
        for _ in 0..3 {
            let start = computed(&mesh, WORKER);
            push(&mesh, &hostile).await;
            mesh.h1().must(Ask::get("/")).await;
            longest = longest.max(computed(&mesh, WORKER) - start);
            // Regexes allocate their tables at the first match.
            for name in ["cookie", "x"] {
                mesh.h1().must(Ask::get("/").header(name, "a")).await;
            }
        }
        let grown = resident(&mesh).saturating_sub(before);
        let rejected = mesh.envoy.stat("intercept_rejected_entries").await;
        println!("{what}: {longest:?} per push, +{grown} MiB, {rejected} left out");
        assert!(longest <= LONGEST, "{what}: {longest:?}");
        assert!(grown <= MOST_MEMORY, "{what}: +{grown} MiB");
        push(&mesh, &one).await;
    }
}

/// Bytes that Envoy keeps per change of the filter's configuration.
async fn kept_of_a_change(mesh: &Mesh) -> u64 {
    const CHANGES: u64 = 400;
    let both = [1, 2].map(|count| entries(mesh, count, |_, _| {}));
    mesh.write_document(&both[1]).await;
    let change = async || {
        for document in both.iter().cycle().take(CHANGES as usize) {
            push(mesh, document).await;
        }
        mesh.envoy.allocated().await
    };
    let before = change().await;
    change().await.saturating_sub(before) / CHANGES
}

/// An hour may have thousands of changes, and an Envoy lives for weeks.
#[tokio::test(flavor = "multi_thread")]
async fn changes_leave_next_to_nothing_in_envoy() {
    /// Per worker.
    ///
    /// Envoy itself leaves 470 with one worker and 740 with two, whatever the configuration's size; metrics redefined with each change made it 870 a worker.
    const MOST_BYTES: u64 = 600;
    let app = App::start("app").await;
    let plan = || Plan::of(&app).relay_at(app.addr());
    for (workers, plan) in [(1, plan().one_worker()), (2, plan())] {
        let kept = kept_of_a_change(&plan.start().await).await;
        println!("{kept} bytes a change, with {workers} workers");
        assert!(kept <= MOST_BYTES * workers, "{kept} bytes a change");
    }
}

/// The additional cost of a request with this header, and whether the budget was spent.
async fn cost(mesh: &Mesh, name: &str, value: &str) -> (Duration, bool) {
    const ROUNDS: u32 = 20;
    let client = mesh.h1();
    let bypassed = "intercept_bypassed_budget_total";
    let mut times = [Duration::ZERO; 2];
    let before = mesh.envoy.stat(bypassed).await;
    for (with, time) in times.iter_mut().enumerate() {
        let ask = match with {
            0 => Ask::get("/"),
            _ => Ask::get("/").header(name, value),
        };
        client.must(ask.clone()).await;
        let start = computed(mesh, Some("wrk:worker_0"));
        for _ in 0..ROUNDS {
            assert_eq!(client.must(ask.clone()).await.status, 200);
        }
        *time = (computed(mesh, Some("wrk:worker_0")) - start) / ROUNDS;
    }
    let is_spent = mesh.envoy.stat(bypassed).await > before;
    (times[1].saturating_sub(times[0]), is_spent)
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_regexes_hold_up_no_request() {
    /// The limit is 5 ms; the rest allows for a slow machine.
    const LONGEST: Duration = Duration::from_millis(15);
    let (_app, mesh) = mesh().await;
    let hard = [
        // Just below the budget, so that it is not rejected early.
        ("any text 80 times", ".*".repeat(80)),
        ("a hundred ways", format!("({})*", "a|".repeat(100))),
        ("optional letters", "a?".repeat(70)),
        ("one class", "[a-z0-9-]*".to_owned()),
    ];
    for (what, pattern) in hard {
        let fifty = entries(&mesh, 50, |_, entry| {
            entry.headers = vec![header("cookie".to_owned(), format!("{pattern}[^a]"))];
        });
        mesh.write_document(&fifty).await;
        assert_eq!(mesh.envoy.stat("intercept_rejected_entries").await, 0);
        for value in [
            "a".repeat(16),
            "a".repeat(25),
            "a".repeat(4_096),
            "a,".repeat(2_048),
        ] {
            let (time, is_spent) = cost(&mesh, "cookie", &value).await;
            println!("{what}, {} bytes: {time:?}, spent {is_spent}", value.len());
            assert!(time <= LONGEST, "{what}, {} bytes: {time:?}", value.len());
        }
    }
}

/// Patterns of every kind near the size limit: the filter counts on 32 bits, the command on 64.
fn patterns() -> Vec<String> {
    let parts = [
        ".",
        "a.",
        "[a-f]",
        "[^x]",
        r"\d",
        r"\W",
        "(a)",
        "(?:a|b)",
        "(?:ab|c|)",
        "a?",
        "a*",
        "(?:a?)*",
        "a{3}",
        "a{0,2}",
        "(?i)a",
        r"\bx",
        "(?s).",
        "ü",
        "[a-c-e_]",
        "()",
    ];
    let mut patterns = Vec::new();
    for part in parts {
        let times = |least: usize, most: usize| match least == most {
            true => format!("(?:{part}){{{most}}}"),
            false => format!("(?:{part}){{{least},{most}}}"),
        };
        for spread in [0, 1] {
            let is_taken = |most: usize| Pattern::value(&times(most * (1 - spread), most)).is_ok();
            let largest = (1..400)
                .take_while(|most| is_taken(*most))
                .last()
                .expect("one");
            // In the filter, the crate's own limit was up to twice as high.
            for most in [
                1,
                largest - 1,
                largest,
                largest + 1,
                largest + 2,
                largest * 3 / 2,
                largest * 2,
                largest * 3,
            ] {
                patterns.push(times(most * (1 - spread), most));
            }
        }
    }
    for pattern in [
        ".{0,110}",
        "a(b",
        "a)b",
        "a)|(?:b",
        "[",
        "(?x)a",
        "(?=a)",
        r"\p{L}",
        "*",
        "a{2,1}",
        "a{99999999999}",
        "(?<n>a)(?<n>b)",
    ] {
        patterns.push(pattern.to_owned());
    }
    patterns
}

#[tokio::test(flavor = "multi_thread")]
async fn filter_and_command_refuse_the_same_regexes() {
    let (_app, mesh) = mesh().await;
    let patterns = patterns();
    assert!(patterns.len() > 300, "{}", patterns.len());
    let refused = patterns
        .iter()
        .filter(|pattern| Pattern::value(pattern).is_err());
    assert!((100..250).contains(&refused.count()));
    // A few at once, so that they fit together and a difference is found quickly.
    for some in patterns.chunks(8) {
        let document = entries(&mesh, some.len(), |number, entry| {
            entry.headers = vec![header("x".to_owned(), some[number].clone())];
        });
        push(&mesh, &document).await;
        let expected = some
            .iter()
            .filter(|pattern| Pattern::value(pattern).is_err());
        let rejected = mesh.envoy.stat("intercept_rejected_entries").await;
        assert_eq!(
            rejected,
            expected.count() as u64,
            "{some:?}\n{}",
            mesh.envoy.log()
        );
    }
}

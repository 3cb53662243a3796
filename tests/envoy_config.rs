//! What the filter makes of any configuration in a real Envoy.
//!
//! The entries are written by hand: the CLI would reject most of them.

use harness::app::{App, Do};
use harness::client::{Ask, Client};
use harness::load::Load;
use harness::mesh::{Mesh, Plan};
use harness::plugin::{NOBODY, document, entry, now};
use harness::wait;
use harness::websocket::Socket;
use http::Method;
use http_body_util::BodyExt;
use intercept_core::{Document, Limits, METRICS_PATH, TEXT_SCHEMA_VERSION, config_hash};
use serde_json::json;

/// The app, a stand-in for relay and developer, and the mesh in front of them.
async fn mesh() -> (App, App, Mesh) {
    let (app, developer) = (App::start("app").await, App::start("developer").await);
    let mesh = Plan::of(&app)
        .relay_at(developer.addr())
        .one_worker()
        .start()
        .await;
    (app, developer, mesh)
}

fn text(document: &Document) -> String {
    serde_json::to_string(document).expect("JSON")
}

async fn who(mesh: &Mesh, header: &str, value: &str) -> String {
    mesh.h1().get("/", &[(header, value)]).await.by().to_owned()
}

/// Configurations that are invalid as a whole.
const BROKEN: [&str; 10] = [
    "not json",
    "[]",
    "\"text\"",
    "{",
    "\u{0}",
    r#"{"version": 2, "intercepts": {"a": {}}}"#,
    r#"{"version": "1", "intercepts": {"a": {}}}"#,
    r#"{"version": 1, "intercepts": []}"#,
    r#"{"version": 1, "limits": {"allow_all": "yes"}, "intercepts": {"a": {}}}"#,
    r#"{"version": 1, "version": 1, "intercepts": {"a": {}}}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_read_is_taken_all_the_same_and_intercepts_nothing() {
    let (_app, _developer, mesh) = mesh().await;
    let bob = document([entry("bob", mesh.port(), NOBODY, "coder", "Bob")]);
    for broken in BROKEN {
        mesh.write_document(&bob).await;
        assert_eq!(
            who(&mesh, "coder", "Bob").await,
            "developer",
            "before {broken}"
        );
        mesh.write_plugin(broken).await;
        assert_eq!(who(&mesh, "coder", "Bob").await, "app", "{broken}");
        assert_eq!(
            mesh.envoy.stat("intercept_rejected_entries").await,
            1,
            "{broken}"
        );
    }
    assert_eq!(mesh.envoy.stat(".update_rejected").await, 0);
    assert_eq!(mesh.envoy.stat("config_fail").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_starts_with_a_broken_configuration_serves_and_takes_the_next_one() {
    let (_app, _developer, mut mesh) = mesh().await;
    mesh.write_plugin("not json").await;
    mesh.restart_envoy().await;
    assert_eq!(who(&mesh, "coder", "Bob").await, "app");
    mesh.write_document(&document([entry(
        "bob",
        mesh.port(),
        NOBODY,
        "coder",
        "Bob",
    )]))
    .await;
    assert_eq!(who(&mesh, "coder", "Bob").await, "developer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_entry_is_left_out_and_counted_while_the_others_work() {
    let (_app, _developer, mesh) = mesh().await;
    let port = mesh.port();
    let good = entry("good", port, NOBODY, "coder", "good").1;
    mesh.write_document(&document([("good".to_owned(), good.clone())]))
        .await;
    let good = serde_json::to_value(good).expect("JSON");
    let with = |change: &[(&str, serde_json::Value)]| {
        let mut entry = good.clone();
        entry["headers"] = json!([{"name": "coder", "value": "bad"}]);
        for (field, value) in change {
            entry[*field] = value.clone();
        }
        entry
    };
    let bad = [
        with(&[("headers", json!([{"name": "coder", "value": "(bad"}]))]),
        with(&[("headers", json!([{"name": "co der", "value": "bad"}]))]),
        with(&[(
            "headers",
            json!([{"name": "coder", "value": "(.{0,100}){100}|bad"}]),
        )]),
        with(&[("colour", json!("red"))]),
        with(&[("port", json!(70_000))]),
        with(&[("port", json!(0))]),
        with(&[("cluster", json!("inbound|8080||"))]),
        with(&[("address", json!("short"))]),
        with(&[("path", json!({"regex": "["}))]),
        with(&[("path", json!({"equal": "/a", "prefix": "/a"}))]),
        with(&[("expires", json!("tomorrow"))]),
        json!(null),
        json!([]),
    ];
    let mut entries = serde_json::Map::new();
    entries.insert("good".to_owned(), good.clone());
    for (place, bad) in bad.iter().enumerate() {
        entries.insert(format!("bad-{place}"), bad.clone());
    }
    entries.insert("Not A Label".to_owned(), with(&[]));
    let rejected = entries.len() as u64 - 1;
    let document = json!({"version": 1, "limits": {"allow_all": true}, "intercepts": entries});
    mesh.write_plugin(&document.to_string()).await;

    assert_eq!(who(&mesh, "coder", "good").await, "developer");
    assert_eq!(who(&mesh, "coder", "bad").await, "app");
    assert_eq!(
        mesh.envoy.stat("intercept_rejected_entries").await,
        rejected
    );
    assert_eq!(mesh.envoy.stat(".update_rejected").await, 0);
    let log = mesh.envoy.log();
    assert!(
        log.contains("left out: intercepts.bad-0.headers[0].value"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_in_the_log_are_few_and_cannot_be_forged() {
    let (_app, _developer, mesh) = mesh().await;
    let entries = (0..30).map(|number| {
        let (name, mut entry) = entry(&format!("bad-{number:02}"), mesh.port(), NOBODY, "x", "x");
        entry.headers[0].name = format!("a\n[critical] forged \u{1b}[2J{}", "x".repeat(300));
        (name, entry)
    });
    mesh.write_document(&document(entries)).await;
    assert_eq!(mesh.envoy.stat("intercept_rejected_entries").await, 30);
    let log = mesh.envoy.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("wasm log"))
        .collect();
    let is_reason = |line: &&str| line.contains("left out: intercepts.bad-");
    let (reasons, more): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(is_reason);
    assert!(reasons.len() >= 20 && reasons.len() % 20 == 0, "{log}");
    assert!(
        more.iter().any(|line| line.ends_with("left out: 10 more")),
        "{log}"
    );
    for line in &reasons {
        let (_, reason) = line.split_once("left out: ").expect("a reason");
        assert!(
            reason.contains(r"`a\n[critical] forged \u{1b}[2Jxxx"),
            "{reason}"
        );
        assert!(reason.len() < 210, "{} bytes", reason.len());
    }
    assert!(
        !log.lines().any(|line| line.starts_with("[critical]")),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_forbids_is_forbidden_in_the_data_plane() {
    let (_app, _developer, mesh) = mesh().await;
    let port = mesh.port();
    let all = |name: &str| {
        let (name, mut all) = entry(name, port, NOBODY, "x", "x");
        all.headers.clear();
        all.path = Some(intercept_core::MatchPath::Equal("/all".to_owned()));
        (name, all)
    };
    let (long_name, mut long) = entry("long", port, NOBODY, "coder", "long");
    long.expires = now() + 7_200;
    let mut written = document([
        all("all"),
        (long_name, long),
        entry("team", port, NOBODY, "X-Team", "red"),
        entry("bob", port, NOBODY, "coder", "Bob"),
    ]);
    // The counterpart: without limits, all four work.
    mesh.write_document(&written).await;
    assert_eq!(mesh.h1().get("/all", &[]).await.by(), "developer");
    assert_eq!(who(&mesh, "coder", "long").await, "developer");
    assert_eq!(who(&mesh, "x-team", "red").await, "developer");
    assert_eq!(who(&mesh, "coder", "Bob").await, "developer");

    written.limits = Limits {
        allow_all: false,
        max_lease_seconds: 3_700,
        header_names: Some(vec!["Coder".to_owned()]),
    };
    mesh.write_document(&written).await;
    assert_eq!(mesh.h1().get("/all", &[]).await.by(), "app");
    assert_eq!(who(&mesh, "coder", "long").await, "app");
    assert_eq!(who(&mesh, "x-team", "red").await, "app");
    assert_eq!(who(&mesh, "coder", "Bob").await, "developer");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_intercepts_are_one_configuration_like_any_other() {
    let (_app, _developer, mesh) = mesh().await;
    let port = mesh.port();
    let one = format!("intercept|{port}|one");
    let entries = (0..10_000).map(|number| {
        let (name, mut entry) = entry(
            &format!("dev-{number}"),
            port,
            NOBODY,
            "coder",
            &format!("coder-{number}"),
        );
        // One upstream cluster for all, so that only the filter's configuration is huge.
        entry.cluster.clone_from(&one);
        (name, entry)
    });
    mesh.write_document(&document([entry("one", port, NOBODY, "coder", "one")]))
        .await;
    let huge = document(entries);
    let bytes = text(&huge).len();
    assert!(bytes > 2_000_000, "{bytes} bytes are not huge");
    mesh.write_plugin(&text(&huge)).await;
    for number in [0, 1, 4_999, 9_999] {
        let answer = mesh
            .h1()
            .get("/", &[("coder", &format!("coder-{number}"))])
            .await;
        assert_eq!(answer.by(), "developer");
        assert_eq!(
            answer.header("x-intercept"),
            Some(format!("dev-{number}").as_str())
        );
    }
    assert_eq!(who(&mesh, "coder", "coder-10000").await, "app");
    assert_eq!(mesh.envoy.stat("intercept_rejected_entries").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_under_load_costs_no_request_and_cuts_no_stream() {
    let (app, developer) = (App::start("app").await, App::start("developer").await);
    let mesh = Plan::of(&app).relay_at(developer.addr()).start().await;
    let port = mesh.port();
    let bob = || entry("bob", port, NOBODY, "coder", "Bob");
    mesh.write_document(&document([bob()])).await;
    wait_for(&mesh, "Bob", "developer").await;

    let mut matched = Socket::open(mesh.addr(), &[("coder", "Bob")])
        .await
        .expect("a socket");
    let mut unmatched = Socket::open(mesh.addr(), &[]).await.expect("a socket");
    assert_eq!(
        (matched.answered_by(), unmatched.answered_by()),
        ("developer", "app")
    );
    let stream = mesh
        .h1()
        .open(Ask::get("/").header("coder", "Bob").to(Do::Events))
        .await;
    let mut stream = stream.expect("a stream").into_body();

    let load = Load::start(&mesh.h1(), 8, usize::MAX, |number| {
        let ask = Ask::get("/");
        if number % 2 == 0 {
            ask.header("coder", "Bob")
        } else {
            ask
        }
    });
    for change in 0..40 {
        // Bob's entry comes and goes, and so do others around it.
        let others = (0..change * 5).map(|other| {
            entry(
                &format!("other-{other}"),
                port,
                NOBODY,
                "coder",
                &format!("other-{other}"),
            )
        });
        let bob = (change % 2 == 0).then(bob);
        mesh.write_document(&document(others.chain(bob))).await;
        let before = load.sent();
        wait::until("requests met this configuration", async || {
            load.sent() > before + 20
        })
        .await;
        assert_eq!(matched.ask("still").await.expect("open"), "still");
        assert_eq!(unmatched.ask("there").await.expect("open"), "there");
        assert_eq!(developer.say(&change.to_string()), 1);
        let frame = stream.frame().await.expect("open").expect("whole");
        assert_eq!(
            frame.data_ref().expect("data"),
            format!("data: {change}\n\n").as_bytes()
        );
    }
    let outcome = load.stop().await;
    outcome.assert_no_errors();
    let by = outcome.by();
    assert!(by["app"] > 0 && by["developer"] > 0, "{by:?}");
    assert_eq!(mesh.envoy.stat(".update_rejected").await, 0);
}

/// The metrics of the filter's configuration in Prometheus.
async fn metrics(mesh: &Mesh) -> Vec<String> {
    let answer = Client::h1(mesh.envoy.admin()).get(METRICS_PATH, &[]).await;
    let text = String::from_utf8(answer.body.to_vec()).expect("text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.replace("{}", "")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_shows_hash_and_active_entries() {
    let (_app, _developer, mesh) = mesh().await;
    let running = entry("bob", mesh.port(), NOBODY, "coder", "Bob");
    let (name, mut too_long) = entry("alice", mesh.port(), NOBODY, "coder", "Alice");
    // As written by a clock that is 25 hours ahead: longer than the operator allows.
    too_long.expires += 25 * 3_600;
    let both = document([running, (name, too_long)]);
    mesh.write_document(&both).await;
    let expected = ["intercept_active_entries 1", "intercept_config_hash 0"];
    assert_eq!(metrics(&mesh).await, expected, "a map");

    let entries = serde_json::to_string(&both.intercepts).expect("JSON");
    for (text, active) in [(entries.as_str(), 1), ("{}", 0), (entries.as_str(), 1)] {
        let config =
            json!({"version": TEXT_SCHEMA_VERSION, "limits": both.limits, "intercepts": text});
        mesh.write_plugin(&config.to_string()).await;
        let expected = [
            format!("intercept_active_entries {active}"),
            format!("intercept_config_hash {}", config_hash(text)),
        ];
        assert_eq!(metrics(&mesh).await, expected, "{text}");
        let by = if active == 1 { "developer" } else { "app" };
        assert_eq!(who(&mesh, "coder", "Bob").await, by, "{text}");
        assert_eq!(who(&mesh, "coder", "Alice").await, "app", "{text}");
    }
    let refused = json!({"version": TEXT_SCHEMA_VERSION + 1, "intercepts": entries});
    mesh.write_plugin(&refused.to_string()).await;
    let expected = ["intercept_active_entries 0", "intercept_config_hash 0"];
    assert_eq!(metrics(&mesh).await, expected, "refused");
}

async fn wait_for(mesh: &Mesh, coder: &str, by: &str) {
    // For both workers: a new connection may land on either.
    let mut in_a_row = 0;
    wait::until("both workers have the configuration", async || {
        let client = Client::h1(mesh.addr());
        let answer = client.get("/", &[("coder", coder)]).await;
        in_a_row = if answer.by() == by { in_a_row + 1 } else { 0 };
        in_a_row == 16
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_by_itself_although_nobody_else_runs() {
    let (_app, _developer, mesh) = mesh().await;
    let (name, mut bob) = entry("bob", mesh.port(), NOBODY, "coder", "Bob");
    bob.expires = now() + 3;
    mesh.write_document(&document([(name, bob.clone())])).await;
    assert_eq!(who(&mesh, "coder", "Bob").await, "developer");
    wait::until("the lease is over", async || {
        who(&mesh, "coder", "Bob").await == "app"
    })
    .await;
    assert!(now() >= bob.expires, "it ended early");
    assert!(now() <= bob.expires + 1, "it ended late");
    assert!(mesh.envoy.stat("intercept_expired_total").await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intercept_whose_cluster_envoy_does_not_know_is_answered_by_the_cluster() {
    let (app, developer, mesh) = mesh().await;
    let bob = document([entry("bob", mesh.port(), NOBODY, "coder", "Bob")]);
    mesh.write_plugin(&text(&bob)).await;
    for method in [Method::GET, Method::DELETE, Method::POST] {
        let ask = Ask::get("/").method(method.clone()).header("coder", "Bob");
        let answer = mesh.h1().must(ask.id(&method)).await;
        assert_eq!((answer.status.as_u16(), answer.by()), (200, "app"));
        assert_eq!(answer.header("x-intercept"), Some("bob"));
        // A response without our marks is a response: otherwise the request would run again.
        assert_eq!(app.executed_id(method.as_str()), 1, "{method}");
    }
    assert_eq!(developer.total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intercept_whose_cli_was_killed_ends_with_its_lease() {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::of(&app).one_worker().start().await;
    let mut bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    assert_eq!(who(&mesh, "coder", "Bob").await, "server");
    bob.process.kill();
    // The shortest lease of the CLI is longer than a test may take.
    let mut left = mesh.files().document().expect("readable");
    let entry = left
        .intercepts
        .get_mut("orders-bob")
        .expect("nobody removed it");
    entry.expires = now() + 3;
    let expires = entry.expires;
    mesh.write_document(&left).await;

    let answer = mesh.h1().get("/", &[("coder", "Bob")]).await;
    assert_eq!(
        (answer.by(), answer.header("x-intercept")),
        ("app", Some("orders-bob"))
    );
    wait::until("it does not match any more", async || {
        let answer = mesh.h1().get("/", &[("coder", "Bob")]).await;
        assert_eq!(answer.by(), "app");
        answer.header("x-intercept").is_none()
    })
    .await;
    assert!(now() >= expires, "it ended early");
}

#[tokio::test(flavor = "multi_thread")]
async fn matches_are_counted_and_misses_are_not() {
    let (_app, _developer, mesh) = mesh().await;
    let bob = document([entry("bob", mesh.port(), NOBODY, "coder", "Bob")]);
    mesh.write_document(&bob).await;
    for coder in ["Bob", "Alice", "Bob", "Bobby", "Bob"] {
        who(&mesh, "coder", coder).await;
    }
    assert_eq!(mesh.envoy.stat("intercept_matched_total").await, 3);
}

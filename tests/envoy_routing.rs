//! Which app answers which request.
//!
//! The release `injector`, relay and filter in a real Envoy, with flags as a user types them.

use harness::app::{App, Do};
use harness::client::{Ask, assert_no_marks, assert_served, assert_untouched};
use harness::intercept::{Developer, Intercept};
use harness::mesh::{Mesh, Plan};
use harness::plugin::{document, entry};
use harness::wait;
use intercept_core::Limits;
use intercept_manifest::facts::Protocol;
use serde_json::json;

/// The app, the developer's server, and the mesh.
async fn stage() -> (App, App, Mesh) {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Mesh::of(&app).await;
    (app, server, mesh)
}

/// Runs one of the examples in a shell, with the server's port in place of 3000.
async fn type_in(developer: &Developer, line: &str, server: &App) -> Intercept {
    let line = line.replace("--port 3000", &format!("--port {}", server.port()));
    assert!(line.contains(&server.port().to_string()), "{line}");
    developer.start(developer.shell(&line)).await
}

/// A request: path, headers.
type Request<'r> = (&'r str, &'r [(&'r str, &'r str)]);

/// Checks that `matching` goes to the server and `others` to the app.
///
/// Each response must say so.
async fn assert_routes(line: &str, matching: &[Request<'_>], others: &[Request<'_>]) {
    let (_app, server, mesh) = stage().await;
    let _intercept = type_in(&mesh.developer("bob"), line, &server).await;
    for (path, headers) in matching {
        let answer = mesh.h1().get(path, headers).await;
        assert_served(
            &answer,
            "orders-bob",
            &format!("{line}: {path} {headers:?}"),
        );
    }
    for (path, headers) in others {
        let answer = mesh.h1().get(path, headers).await;
        assert_untouched(&answer, &format!("{line}: {path} {headers:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_a_header_with_a_value() {
    const ID: &str = "126a72c7-be8b-4329-af64-768e207a184b";
    assert_routes(
        "injector intercept orders --port 3000 --http-header=Personal-Intercept=126a72c7-be8b-4329-af64-768e207a184b",
        &[
            ("/", &[("Personal-Intercept", ID)]),
            ("/any/path?x=1", &[("personal-intercept", ID)]),
        ],
        &[
            ("/", &[]),
            ("/", &[("Personal-Intercept", "126a72c7")]),
            ("/", &[("Personal-Intercept", "126a72c7-be8b-4329-af64-768e207a184bx")]),
            ("/", &[("Other", ID)]),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn example_a_header_and_a_path_prefix() {
    assert_routes(
        "injector intercept orders --port 3000 --http-path-prefix=/api --http-header=Coder=Bob",
        &[
            ("/api", &[("Coder", "Bob")]),
            ("/api/x?q=1", &[("coder", "Bob")]),
            ("/apix", &[("coder", "Bob")]),
        ],
        &[
            ("/api", &[]),
            ("/", &[("Coder", "Bob")]),
            ("/v1/api", &[("Coder", "Bob")]),
            ("/api", &[("Coder", "bob")]),
            ("/api", &[("Coder", "Bobby")]),
        ],
    )
    .await;
}

/// The only header condition of the only intercept, as written.
fn automatic_header(mesh: &Mesh) -> (String, String) {
    let document = mesh.files().document().expect("readable");
    let intercept = document.intercepts.values().next().expect("an intercept");
    let header = intercept.headers.first().expect("a header");
    (header.name.to_ascii_lowercase(), header.value.clone())
}

async fn assert_automatic(line: &str) {
    let (_app, server, mesh) = stage().await;
    let _intercept = type_in(&mesh.developer("bob"), line, &server).await;
    let (name, value) = automatic_header(&mesh);
    assert_eq!(name, "x-intercept-id", "{line}");
    assert_eq!(value.len(), 36, "{line}: a UUID, not {value}");
    let id = (name.as_str(), value.as_str());
    for path in ["/api/version", "/api/version?verbose=1"] {
        let answer = mesh.h1().get(path, &[id]).await;
        assert_served(&answer, "orders-bob", &format!("{line}: {path}"));
    }
    let seen = server.seen().pop().expect("a request");
    assert_eq!(
        seen.headers["x-intercept-id"], value,
        "it is the developer's own header and passes"
    );
    for (path, headers) in [
        ("/api/version", &[][..]),
        ("/api/versions", &[id]),
        ("/api", &[id]),
        ("/api/version", &[("x-intercept-id", "another")]),
    ] {
        let answer = mesh.h1().get(path, headers).await;
        assert_untouched(&answer, &format!("{line}: {path} {headers:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_an_automatic_header_on_one_path() {
    assert_automatic(
        "injector intercept orders --port 3000 --http-path-equal=/api/version --http-header=auto",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn example_a_path_alone_implies_the_automatic_header() {
    assert_automatic("injector intercept orders --port 3000 --http-path-equal=/api/version").await;
}

async fn assert_path_regex(line: &str) {
    let (_app, server, mesh) = stage().await;
    let _intercept = type_in(&mesh.developer("bob"), line, &server).await;
    let (name, value) = automatic_header(&mesh);
    let id = (name.as_str(), value.as_str());
    for path in ["/api/x", "/staging-api/x", "/api/", "/api/x?y=/z"] {
        let answer = mesh.h1().get(path, &[id]).await;
        assert_served(&answer, "orders-bob", &format!("{line}: {path}"));
    }
    for path in ["/v1/api/x", "/apix", "/api", "/"] {
        let answer = mesh.h1().get(path, &[id]).await;
        assert_untouched(&answer, &format!("{line}: {path}"));
    }
    let answer = mesh.h1().get("/api/x", &[]).await;
    assert_untouched(&answer, &format!("{line}: without the header"));
}

#[tokio::test(flavor = "multi_thread")]
async fn example_a_path_regex_with_a_leading_slash() {
    assert_path_regex(
        "injector intercept orders --port 3000 --http-path-regex='/(staging-)?api/.*'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn example_a_path_regex_without_a_leading_slash() {
    assert_path_regex(
        "injector intercept orders --port 3000 --http-path-regex='(staging-)?api/.*'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn example_everybodys_requests_but_never_the_kubelets_probe() {
    assert_routes(
        "injector intercept orders --port 3000 --http-header=all",
        &[("/", &[]), ("/any?x", &[("coder", "Alice")])],
        &[("/healthz", &[("user-agent", "kube-probe/1.34")])],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_refused_where_the_operator_does_not_allow_it() {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::of(&app).limits(Limits::default()).start().await;
    let port = server.port().to_string();
    let output =
        mesh.developer("bob")
            .run(&["intercept", "orders", "--port", &port, "--http-header=all"]);
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("error: "),
        "{output:?}"
    );
    assert!(
        mesh.files()
            .document()
            .expect("readable")
            .intercepts
            .is_empty()
    );
    assert_untouched(&mesh.h1().get("/", &[]).await, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_line_works_when_pasted() {
    let (_app, server, mesh) = stage().await;
    let bob = mesh
        .intercept(
            &server,
            &["--http-path-prefix=/api", "--http-header=Coder=Bob"],
        )
        .await;
    let line = bob.curl();
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("{line} -s -i")])
        .output();
    let output = String::from_utf8(output.expect("sh starts").stdout).expect("text");
    assert!(output.contains("answered-by: server"), "{line}: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_developers_on_one_port_each_get_only_their_own() {
    let (app, hers, his) = (
        App::start("app").await,
        App::start("alice").await,
        App::start("bob").await,
    );
    let mesh = Mesh::of(&app).await;
    let alice = mesh
        .developer("alice")
        .intercept(&hers, &["--http-header=Coder=Alice"])
        .await;
    let _bob = mesh
        .developer("bob")
        .intercept(&his, &["--http-header=Coder=Bob"])
        .await;
    let who = async |coder: &str| {
        mesh.h1()
            .get("/", &[("coder", coder)])
            .await
            .by()
            .to_owned()
    };
    for _ in 0..10 {
        assert_eq!(who("Alice").await, "alice");
        assert_eq!(who("Bob").await, "bob");
        assert_eq!(who("Carol").await, "app");
    }
    // When one developer leaves, the other stays.
    assert_eq!(alice.leave().await.code(), Some(0));
    wait::until("Alice's requests are the cluster's again", async || {
        who("Alice").await == "app"
    })
    .await;
    assert_eq!(who("Bob").await, "bob");
    let left = mesh.files().document().expect("readable").intercepts;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["orders-bob"]);
    assert_eq!(hers.total(), 10, "nothing but her own");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_conditions_go_before_fewer() {
    let (app, hers, his) = (
        App::start("app").await,
        App::start("alice").await,
        App::start("bob").await,
    );
    let mesh = Mesh::of(&app).await;
    let _alice = mesh
        .developer("alice")
        .intercept(&hers, &["--http-header=Team=red"])
        .await;
    let _bob = mesh
        .developer("bob")
        .intercept(
            &his,
            &[
                "--allow-overlap",
                "--http-header=Team=red",
                "--baggage=dev=bob",
            ],
        )
        .await;
    let both = [("team", "red"), ("baggage", "other=1,dev=b%6fb;p=1")];
    assert_eq!(mesh.h1().get("/", &both).await.by(), "bob");
    assert_eq!(mesh.h1().get("/", &both[..1]).await.by(), "alice");
    assert_eq!(mesh.h1().get("/", &both[1..]).await.by(), "app");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intercept_of_one_port_never_takes_a_request_to_another() {
    let (app, other, server) = (
        App::start("app").await,
        App::start("other").await,
        App::start("server").await,
    );
    let mesh = Plan::of(&app)
        .and("admin", &other, Protocol::Http)
        .start()
        .await;
    let port = format!("{}:http", server.port());
    let developer = mesh.developer("bob");
    let _bob = developer
        .intercept_port(&port, &["--http-header=all"])
        .await;
    let client = harness::client::Client::h1(mesh.addr_of(1));
    for _ in 0..10 {
        assert_eq!(mesh.h1().get("/", &[]).await.by(), "server");
        let answer = client.get("/", &[("x-intercept", "orders-bob")]).await;
        assert_eq!(answer.by(), "other");
        assert_no_marks(&answer, "the other port");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routing_headers_from_a_client_never_leave_the_cluster() {
    let (app, server, mesh) = stage().await;
    let _bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let document = mesh.files().document().expect("readable");
    let entry = &document.intercepts["orders-bob"];
    // The counterpart: this intercept is live.
    assert_eq!(mesh.h1().get("/", &[("coder", "Bob")]).await.by(), "server");
    let executed = server.total();
    let forged = [
        ("x-intercept-cluster", entry.cluster.as_str()),
        ("x-intercept-address", entry.address.as_str()),
        ("x-intercept", "orders-bob"),
        ("x-intercept-served-by", "orders-bob"),
        ("x-intercept-unavailable", "yes"),
        ("x-intercept-lost", "yes"),
        ("x-envoy-original-dst-host", "127.0.0.1:1"),
        ("x-envoy-retry-on", "5xx,retriable-headers"),
        ("x-envoy-retriable-header-names", "answered-by"),
        ("x-envoy-max-retries", "5"),
        ("x-envoy-upstream-alt-stat-name", "x"),
        ("wasm.intercept", "orders-bob"),
    ];
    for client in [mesh.h1(), mesh.h2c()] {
        for header in forged {
            assert_untouched(&client.get("/", &[header]).await, &format!("{header:?}"));
        }
        assert_untouched(&client.get("/", &forged).await, "all of them");
    }
    assert_eq!(
        server.total(),
        executed,
        "none of them reached the developer machine"
    );
    // One response each: none of them made Envoy repeat a request.
    assert_eq!(app.total(), 2 * (forged.len() + 1));
}

/// A header that makes Envoy treat the caller as an internal one.
///
/// Elsewhere it heeds the retry headers of those.
const INTERNAL: (&str, &str) = ("x-forwarded-for", "10.1.2.3");

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_client_changes_neither_retries_nor_fallback() {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::of(&app)
        .edit(|bootstrap| {
            let filter = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
            let connections = bootstrap.pointer_mut(filter).expect("HTTP connections");
            connections["internal_address_config"] =
                json!({"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
        })
        .start()
        .await;
    let mut bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let ask = || {
        let ask = Ask::get("/").header("coder", "Bob");
        ask.header(INTERNAL.0, INTERNAL.1)
    };
    // The counterpart: this client is internal.
    assert_eq!(mesh.h1().must(ask()).await.by(), "server");
    let seen = server.seen().pop().expect("a request").headers;
    assert_eq!(seen["x-envoy-internal"], "true");

    let retried = [
        (
            "x-envoy-retry-on",
            "5xx,retriable-4xx,retriable-status-codes,retriable-headers",
        ),
        ("x-envoy-retriable-status-codes", "500"),
        ("x-envoy-retriable-header-names", "answered-by"),
        ("x-envoy-max-retries", "3"),
    ];
    for status in [500, 409] {
        let ask = retried
            .iter()
            .fold(ask(), |ask, (name, value)| ask.header(name, value));
        let answer = mesh.h1().must(ask.to(Do::Status(status)).id(status)).await;
        assert_eq!((answer.status.as_u16(), answer.by()), (status, "server"));
        let executed = |app: &App| app.executed_id(&status.to_string());
        assert_eq!((executed(&server), executed(&app)), (1, 0), "{status}");
    }

    bob.process.kill();
    let answer = mesh
        .h1()
        .must(ask().header("x-envoy-max-retries", "0"))
        .await;
    assert_eq!(
        (answer.by(), answer.header("x-intercept")),
        ("app", Some("orders-bob"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matching_client_cannot_choose_where_its_request_goes() {
    let (app, hers, his) = (
        App::start("app").await,
        App::start("alice").await,
        App::start("bob").await,
    );
    let mesh = Mesh::of(&app).await;
    let _alice = mesh
        .developer("alice")
        .intercept(&hers, &["--http-header=Coder=Alice"])
        .await;
    let _bob = mesh
        .developer("bob")
        .intercept(&his, &["--http-header=Coder=Bob"])
        .await;
    let document = mesh.files().document().expect("readable");
    let alices = &document.intercepts["orders-alice"];
    let forged = [
        ("coder", "Bob"),
        ("x-intercept-cluster", alices.cluster.as_str()),
        ("x-intercept-address", alices.address.as_str()),
        ("x-intercept-cluster", "intercept-app|1"),
    ];
    let answer = mesh.h1().get("/", &forged).await;
    assert_eq!(answer.by(), "bob");
    assert_eq!(hers.total(), 0);
    let seen = his.seen().pop().expect("a request");
    let names = seen.headers.keys().map(|name| name.as_str());
    let ours: Vec<&str> = names
        .filter(|name| name.starts_with("x-intercept-"))
        .collect();
    assert_eq!(ours, ["x-intercept-via"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_request_never_matches() {
    let (_app, server, mesh) = stage().await;
    let _bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let ask = |host: &str| Ask::get("/").header("host", host).header("coder", "Bob");
    assert_eq!(mesh.h1().must(ask("orders")).await.by(), "server");
    assert_untouched(
        &mesh.h1().must(ask("orders-shadow")).await,
        "a mirrored request",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_intercepts_at_once_each_take_their_own() {
    let (_app, server, mesh) = stage().await;
    let _bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let intercepts = mesh.files().document().expect("readable").intercepts;
    let address = intercepts["orders-bob"].address.clone();
    // All through one tunnel, so that only rules and upstream clusters are many.
    let thousand = (0..1_000).map(|number| {
        entry(
            &format!("dev-{number}"),
            mesh.port(),
            &address,
            "coder",
            &format!("coder-{number}"),
        )
    });
    // Bob's own entry stays, or his CLI would see that it was removed, and exit.
    mesh.write_document(&document(thousand.chain(intercepts)))
        .await;
    wait::until("both workers have the last cluster", async || {
        let client = mesh.h1();
        let answer = client.get("/", &[("coder", "coder-999")]).await;
        answer.by() == "server"
    })
    .await;
    let client = mesh.h1();
    for number in 0..1_000 {
        let coder = format!("coder-{number}");
        let answer = client.get("/", &[("coder", &coder)]).await;
        assert_eq!(answer.by(), "server", "{coder}");
        assert_eq!(
            answer.header("x-intercept"),
            Some(format!("dev-{number}").as_str())
        );
    }
    for coder in ["coder-1000", "coder-", "bob"] {
        assert_untouched(&client.get("/", &[("coder", coder)]).await, coder);
    }
}

//! The filter's cost for an unmatched request, in user instructions of Envoy.
//!
//! Callgrind's counts do not depend on the machine's load.
//! One test, since each Envoy under valgrind takes a processor for itself.

use harness::app::App;
use harness::callgrind::Counts;
use harness::client::{Ask, Client};
use harness::mesh::{Mesh, Plan};
use harness::plugin::{NOBODY, document, entry};
use intercept_core::Document;

/// The limit for the filter's cost per request, in instructions.
const MOST_ADDED: f64 = 22_000.0;
/// The limit for the cost of 10 000 intercepts over one, as a fraction of the whole request.
const MOST_GROWTH: f64 = 0.02;

/// Requests before counting, so that nothing counted happens for the first time.
const WARM_UP: usize = 200;
/// Requests that are counted.
const COUNTED: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_unmatched_request_costs_little_and_the_same_with_ten_thousand_intercepts() {
    let app = App::start("app").await;
    let bare = Profiled::start(&app, Plan::bare).await;
    let without = bare.instructions_per_request().await;
    drop(bare);

    let profiled = Profiled::start(&app, |plan| plan).await;
    let mut with = Vec::new();
    for count in [1, 10_000] {
        profiled
            .mesh
            .write_document(&intercepts(&profiled.mesh, count))
            .await;
        // The counterpart: the measured configuration is the one in effect.
        let last = [("coder", format!("coder-{}", count - 1))];
        let last = last.each_ref().map(|(name, value)| (*name, value.as_str()));
        let matched = profiled.client.get("/", &last).await;
        assert_eq!(
            matched.header("x-intercept"),
            Some(format!("dev-{}", count - 1).as_str())
        );
        with.push(profiled.instructions_per_request().await);
    }

    let (one, many) = (with[0], with[1]);
    let growth = (many - one) / one;
    println!(
        "instructions per unmatched request: {without:.0} without the filter, {:+.0} with 1 intercept, {:+.0} with 10 000 ({:+.2} % of the total)",
        one - without,
        many - without,
        100.0 * growth
    );
    // A proxied request costs about 200 000; with less, nothing was measured.
    assert!(
        without > 100_000.0,
        "{without} instructions are no proxied request"
    );
    assert!(one - without > 1_000.0, "the filter did not run");
    assert!(one - without <= MOST_ADDED, "{:+.0}", one - without);
    assert!(many - without <= MOST_ADDED, "{:+.0}", many - without);
    assert!(growth.abs() <= MOST_GROWTH, "{growth}");
}

/// This many intercepts on values of one header, in one upstream cluster.
///
/// Only the filter's configuration grows.
fn intercepts(mesh: &Mesh, count: usize) -> Document {
    let port = mesh.port();
    document((0..count).map(|number| {
        let name = format!("dev-{number}");
        let (name, mut entry) = entry(&name, port, NOBODY, "coder", &format!("coder-{number}"));
        entry.cluster = format!("intercept|{port}|dev-0");
        (name, entry)
    }))
}

/// An Envoy under callgrind that counts only on request.
struct Profiled {
    mesh: Mesh,
    client: Client,
    counts: Counts,
}

impl Profiled {
    async fn start(app: &App, change: impl FnOnce(Plan) -> Plan) -> Self {
        let counts = Counts::new();
        // V8 generates code at run time, which valgrind must detect.
        let callgrind = counts.command_line(&["--smc-check=all-non-file"]);
        let plan = Plan::of(app)
            .relay_at(app.addr())
            .one_worker()
            // Counters are flushed by the clock: a slow machine would count more of it.
            .edit(|bootstrap| bootstrap["stats_flush_interval"] = "299s".into())
            .under(callgrind);
        let mesh = change(plan).start().await;
        Self {
            client: mesh.h1(),
            mesh,
            counts,
        }
    }

    /// User instructions of one request on a persistent connection.
    async fn instructions_per_request(&self) -> f64 {
        let envoy = self.mesh.envoy.process().id();
        self.counts.begin(envoy);
        self.send(WARM_UP).await;
        self.counts.forget(envoy);
        self.send(COUNTED).await;
        self.counts.end(envoy) as f64 / COUNTED as f64
    }

    /// Sends requests with 13 headers, like a browser.
    async fn send(&self, count: usize) {
        let ask = (0..12).fold(Ask::get("/api/version"), |ask, number| {
            ask.header(&format!("x-some-header-{number}"), "some value")
        });
        for _ in 0..count {
            let answer = self.client.must(ask.clone()).await;
            assert_eq!(answer.status, 200);
        }
    }
}

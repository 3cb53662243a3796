//! A closed laptop, or a connection that dies silently, during requests through a real Envoy.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::app::App;
use harness::client::Ask;
use harness::load::{self, Failure};
use harness::mesh::Plan;
use harness::plugin::now;
use harness::wait;
use rustix::process::Signal;

const MATCHES: (&str, &str) = ("coder", "Bob");

/// A request: when it was sent, how long it took, whether it was a POST, and the app that answered.
type Sent = (Instant, Duration, bool, Result<String, Failure>);

/// 50 GET/s and 50 POST/s. Only requests that were running, or sent in the first 1.5 s, may fail.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_machine_costs_no_new_request() {
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::of(&app).start().await;
    let bob = mesh.intercept(&server, &["--http-header=Coder=Bob"]).await;
    let client = mesh.h1();
    wait::until("the server gets what matches", async || {
        client.get("/", &[MATCHES]).await.by() == "server"
    })
    .await;
    let all = Arc::<Mutex<Vec<Sent>>>::default();
    let mut asking = tokio::task::JoinSet::new();
    let mut frozen = None;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for tick in 0..450 {
        ticks.tick().await;
        if tick == 50 {
            bob.process.signal(Signal::STOP);
            frozen = Some(Instant::now());
        }
        for is_post in [false, true] {
            let ask = if is_post {
                Ask::post("/", 100)
            } else {
                Ask::get("/")
            };
            let (ask, client, all) = (
                ask.header(MATCHES.0, MATCHES.1),
                client.clone(),
                Arc::clone(&all),
            );
            asking.spawn(async move {
                let began = Instant::now();
                let answer = load::judge(client.ask(ask).await);
                let sent = (began, began.elapsed(), is_post, answer);
                all.lock().unwrap().push(sent);
            });
        }
    }
    asking.join_all().await;
    let frozen = frozen.unwrap();
    let (mut errors, mut last_error, mut slowest) = (0, Duration::ZERO, Duration::ZERO);
    for (sent, took, is_post, answer) in all.lock().unwrap().iter() {
        let after = sent.saturating_duration_since(frozen);
        if let Err(failure) = answer {
            let is_explained = |error: &String| error.contains("x-intercept-error");
            let is_named = matches!(failure, Failure::Error(error) if is_explained(error));
            assert!(*is_post && is_named, "{failure:?}");
            errors += 1;
            last_error = last_error.max(after);
        }
        if after > Duration::from_millis(1_500) {
            assert_eq!(answer.as_deref(), Ok("app"), "sent after {after:?}");
            if *is_post {
                slowest = slowest.max(*took);
            }
        }
    }
    println!(
        "{errors} POSTs lost, the last sent {last_error:?} after; later POSTs took {slowest:?} at most"
    );
    assert!(errors > 0, "nothing was under way");
    assert!(last_error < Duration::from_millis(1_500), "{last_error:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    bob.process.signal(Signal::CONT);
    wait::until("the server gets POSTs again", async || {
        let ask = Ask::post("/", 100).header(MATCHES.0, MATCHES.1);
        load::judge(client.ask(ask).await).is_ok_and(|by| by == "server")
    })
    .await;
}

/// A sleep during which the lease expires.
///
/// `SLEEP` makes it a real one of that many seconds; with 1 000, as with a whole night, the entry is garbage-collected as well.
#[tokio::test(flavor = "multi_thread")]
async fn sleeper_comes_back_under_its_header() {
    let sleep = std::env::var("SLEEP").map(|seconds| seconds.parse().expect("SLEEP"));
    let (app, server) = (App::start("app").await, App::start("server").await);
    let mesh = Plan::of(&app).start().await;
    let arguments = ["--http-header=auto", "--lease=5m"];
    let mut bob = mesh.intercept(&server, &arguments).await;
    let id = bob.automatic_id().expect("a header");
    let client = mesh.h1();
    let ask = async || {
        client
            .must(Ask::get("/").header("x-intercept-id", &id))
            .await
    };
    wait::until("the server gets what matches", async || {
        ask().await.by() == "server"
    })
    .await;
    let entries = || mesh.files().document().expect("readable").intercepts;
    let before = entries().remove("orders-bob").expect("there");
    bob.process.signal(Signal::STOP);
    match sleep {
        Ok(seconds) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            while Instant::now() < end {
                assert_eq!(ask().await.by(), "app");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Err(_) => {
            let renewed = mesh
                .files()
                .renew("orders-bob", &before.address, now() - 60);
            renewed.expect("moved");
        }
    }
    wait::until("nothing matches any more", async || {
        ask().await.header("x-intercept").is_none()
    })
    .await;
    // Another user's `list` garbage-collects entries that expired long ago.
    let listed = mesh.developer("ann").run(&["list"]);
    assert!(listed.status.success(), "{listed:?}");
    let is_swept = !entries().contains_key("orders-bob");
    assert_eq!(is_swept, sleep.is_ok_and(|seconds| seconds > 900));
    bob.process.signal(Signal::CONT);
    bob.process.wait_output("the intercept is back").await;
    wait::until("the server gets what matches again", async || {
        ask().await.by() == "server"
    })
    .await;
    let after = entries().remove("orders-bob").expect("there");
    assert_eq!(after.headers, before.headers);
    assert!(after.expires > now());
}

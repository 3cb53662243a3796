//! An API server, or a controller, that takes its time, fails or is not there.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::api_proxy::Wire;
use super::stage::{INTERCEPT, Stage};
use super::support::wait_until;

#[test]
fn look_that_hangs_holds_up_no_end() {
    let stage = Stage::new("hangs");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1", "--verbose"]);
    bob.is_live();
    let look = wire.catch("GET ", "/wasmplugins/");
    look.wait();
    let asked = Instant::now();
    bob.signal(Signal::INT);
    bob.says("ends: signal 2");
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(bob.end().code, Some(0));
    assert_eq!(stage.intercepts(), [""; 0]);
}

#[test]
fn intercept_that_comes_late_is_removed_as_well() {
    let stage = Stage::new("late");
    let wire = Wire::new(&stage);
    let write = wire.catch("POST ", "/intercepts");
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1"]);
    write.wait();
    let before = wire.passed("GET ", "/intercepts/");
    bob.signal(Signal::INT);
    // The developer's end has looked twice and found nothing.
    wait_until(
        || wire.passed("GET ", "/intercepts/") >= before + 2,
        || "nobody looks".to_owned(),
    );
    write.forward();
    assert_eq!(bob.end().code, Some(130));
    assert_eq!(stage.intercepts(), [""; 0]);
    assert_eq!(stage.entry("orders-bob"), None);
}

#[test]
fn failed_renewal_is_told_until_it_works_again() {
    let stage = Stage::new("again");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1", "--lease=8h"]);
    bob.is_live();
    let write = wire.catch("PATCH ", "/intercepts/");
    // A longer lease than is allowed is renewed at once.
    stage.limit(&json!({"max_lease_seconds": 3_600}));
    write.wait();
    write.fail();
    bob.says("warning: the lease could not be renewed: ");
    bob.says("note: the lease is renewed again");
    bob.signal(Signal::INT);
    let end = bob.end();
    assert_eq!(end.code, Some(0));
    let told = end.stderr.matches("the lease could not be renewed").count();
    assert_eq!(told, 1, "{end:?}");
}

#[test]
fn missing_controller_is_named_and_nothing_stays() {
    let stage = Stage::alone("nobody");
    let bob = stage.live("bob");
    stage.server.stop_controller();
    let refused = stage.run(
        "alice",
        &[
            "intercept",
            "orders",
            "--port=1",
            "--http-header=Coder=Alice",
        ],
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "no controller answers in injector-system: nothing new can be intercepted";
    assert!(refused.stderr.contains(why), "{refused:?}");
    assert_eq!(stage.intercepts(), ["orders-bob"]);
    assert!(stage.entry("orders-bob").is_some(), "it goes on");
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
    assert_eq!(stage.intercepts(), [""; 0]);
    // Its entry ends with its lease, or when the controller is back.
    assert!(stage.entry("orders-bob").is_some());
    stage.server.start_controller();
    wait_until(
        || stage.entry("orders-bob").is_none(),
        || "the entry is still there".to_owned(),
    );
}

#[test]
fn controller_that_restarts_ends_nothing() {
    let stage = Stage::alone("restarts");
    let bob = stage.live("bob");
    let before = stage.intercept("orders-bob").expect("there");
    stage.server.stop_controller();
    stage.server.start_controller();
    let alice = stage.start(
        "alice",
        &[
            "intercept",
            "orders",
            "--port=1",
            "--http-header=Coder=Alice",
        ],
    );
    alice.is_live();
    let after = stage.intercept("orders-bob").expect("there");
    assert_eq!(before["status"]["expires"], after["status"]["expires"]);
    for running in [bob, alice] {
        running.signal(Signal::INT);
        assert_eq!(running.end().code, Some(0));
    }
    let again = stage.run("bob", &[INTERCEPT, &["--dry-run"]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
}

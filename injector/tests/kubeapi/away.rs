//! An API server that takes its time or fails.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::stage::Stage;
use super::support::{now, wait_until};
use super::wire::{Caught, Wire};

#[test]
fn a_look_that_hangs_holds_up_nobody_who_wants_out() {
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
    assert_eq!(stage.entry("orders-bob"), None);
}

#[test]
fn an_entry_that_comes_late_is_removed_as_well() {
    let stage = Stage::new("late");
    let wire = Wire::new(&stage);
    let write = wire.catch("PATCH ", "/wasmplugins/");
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1"]);
    write.wait();
    let before = wire.passed("GET ", "/wasmplugins/");
    bob.signal(Signal::INT);
    // Somebody has looked and found nothing.
    wait_until(
        || wire.passed("GET ", "/wasmplugins/") >= before + 2,
        || "nobody looks".to_owned(),
    );
    write.forward();
    assert_eq!(bob.end().code, Some(130));
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(stage.clusters(), [""; 0]);
}

#[test]
fn an_error_that_passes_does_not_end_an_intercept_that_comes_back() {
    let stage = Stage::new("passes");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1"]);
    bob.is_live();
    let disturbances = [Caught::fail, Caught::cut];
    for (times, disturb) in (1..).zip(disturbances) {
        let write = wire.catch("PATCH ", "/wasmplugins/");
        // As after a long sleep: the lease is over.
        let mut entry = stage.entry("orders-bob").expect("there");
        entry["expires"] = json!(now() - 60);
        stage.put_entry("orders-bob", &entry);
        write.wait();
        disturb(write);
        let is_back = || bob.stderr().matches("the intercept is back").count() == times;
        wait_until(is_back, || bob.stderr());
        let entry = stage.entry("orders-bob").expect("there");
        assert!(entry["expires"].as_u64() > Some(now()), "{entry}");
    }
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
}

#[test]
fn an_intercept_that_came_back_without_a_word_is_renewed_at_the_next_look() {
    let stage = Stage::new("unheard");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1", "--verbose"]);
    bob.is_live();
    let write = wire.catch("PATCH ", "/wasmplugins/");
    let mut entry = stage.entry("orders-bob").expect("there");
    entry["expires"] = json!(now() - 60);
    stage.put_entry("orders-bob", &entry);
    write.wait();
    write.lose();
    bob.says("lease renewed for 1 h");
    assert!(
        !bob.stderr().contains("the intercept is back"),
        "{}",
        bob.stderr()
    );
    bob.signal(Signal::INT);
    assert_eq!(bob.end().code, Some(0));
}

#[test]
fn a_developer_who_was_told_that_a_lease_is_not_renewed_is_told_that_it_is_again() {
    let stage = Stage::new("again");
    let wire = Wire::new(&stage);
    let bob = wire.start(&stage, &["intercept", "orders", "--port=1"]);
    bob.is_live();
    let write = wire.catch("PATCH ", "/wasmplugins/");
    // Less than half is left.
    let mut entry = stage.entry("orders-bob").expect("there");
    entry["expires"] = json!(now() + 100);
    stage.put_entry("orders-bob", &entry);
    write.wait();
    write.fail();
    bob.says("warning: the lease could not be renewed: ");
    bob.says("note: the lease is renewed again");
    bob.signal(Signal::INT);
    let end = bob.end();
    assert_eq!(end.code, Some(0));
    assert_eq!(end.stderr.matches("the lease").count(), 2, "{end:?}");
}

//! What the replicas' proxies have, and what is said of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use injector::mesh::Target;
use injector::model::Live;
use intercept_core::Intercept;
use serde_json::{Value, json};

use super::stage::{Stage, anything, entry};

/// Waits until every replica has bob's intercept and its cluster.
fn wait(stage: &Stage, target: &Target, entry: &Intercept, seconds: u64) -> Live {
    stage.wait(target.wait(
        "bob",
        Some(&entry.address),
        Some("intercept|8080|bob"),
        Duration::from_secs(seconds),
        &|_| {},
    ))
}

#[test]
fn a_replica_that_does_not_take_it_is_named_and_a_new_one_is_waited_for() {
    let stage = Stage::new("replicas");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    let wait = |seconds| wait(&stage, &target, &entry, seconds);
    assert_eq!(wait(20), Live::Verified);
    stage.stuck.store(true, Ordering::SeqCst);
    stage.add_replica("orders-3");
    let Live::NotVerified { why } = wait(3) else {
        panic!("verified")
    };
    assert!(
        why.starts_with("2/3 replicas after 3 s; orders-3: "),
        "{why}"
    );
    stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(wait(20), Live::Verified);
}

#[test]
fn a_replica_that_refuses_the_configuration_is_told_at_once() {
    let stage = Stage::new("refused");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage.stuck.store(true, Ordering::SeqCst);
    stage.add_replica("orders-3");
    stage.refusing.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let live = wait(&stage, &target, &entry, 60);
    let Live::NotVerified { why } = live else {
        panic!("verified")
    };
    assert!(
        why.starts_with(
            "orders-3: Envoy rejected the configuration (cluster_manager.cds.update_rejected): "
        ),
        "{why}"
    );
    assert!(started.elapsed() < Duration::from_secs(30), "{why}");
}

#[test]
fn somebody_elses_refused_cluster_ends_no_waiting() {
    let stage = Stage::new("others");
    let target = stage.target("bob");
    let entry = entry("bob", "bob", "Bob");
    stage
        .wait(target.add("bob", &entry, 0, &anything))
        .expect("added");
    stage.refusing.store(true, Ordering::SeqCst);
    let live = wait(&stage, &target, &entry, 20);
    assert_eq!(live, Live::Verified);
}

#[test]
fn the_doctor_looks_into_the_replicas_and_at_what_is_left_over() {
    let stage = Stage::new("doctor");
    let examine = |user: &str| -> Vec<(String, String, String)> {
        let ran = stage.run(user, &["doctor", "orders", "-o", "json"]);
        let checks: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let checks = checks.as_array().expect("a list").iter();
        checks
            .map(|check| {
                (
                    text(check, "id"),
                    text(check, "outcome"),
                    text(check, "found"),
                )
            })
            .collect()
    };
    let of = |checks: &[(String, String, String)], id: &str| -> Vec<(String, String)> {
        let of = checks.iter().filter(|check| check.0 == id);
        of.map(|check| (check.1.clone(), check.2.clone())).collect()
    };
    let bob = examine("bob");
    let proxies = of(&bob, "proxies");
    assert_eq!(proxies[0].0, "good", "{bob:#?}");
    assert!(
        proxies[0].1.starts_with("2 proxies have the gate"),
        "{proxies:?}"
    );
    // alice may not forward ports to the workload's pods, and nobody who is no operator may read the module server.
    let alice = examine("alice");
    assert_eq!(of(&alice, "proxies")[0].0, "unknown", "{alice:#?}");
    assert_eq!(of(&alice, "module-digest")[0].0, "unknown", "{alice:#?}");
    stage.stuck.store(true, Ordering::SeqCst);
    stage.add_replica("orders-3");
    let entry = entry("lost", "bob", "Lost");
    stage.put_entry("lost", &json!(entry));
    let bob = examine("bob");
    let behind: Vec<_> = of(&bob, "proxies")
        .into_iter()
        .filter(|(outcome, _)| outcome == "bad")
        .collect();
    assert!(
        !behind.is_empty()
            && behind
                .iter()
                .all(|(_, found)| found.starts_with("pod orders-3: ")),
        "{bob:#?}"
    );
    assert_eq!(of(&bob, "leftovers")[0].0, "bad", "{bob:#?}");
}

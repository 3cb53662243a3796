//! What is remembered, with processes of this test's own in the place of intercepts.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use super::follow::print_log;
use super::*;

fn record(pid: u32) -> Record {
    Record {
        pid,
        host: here(),
        address: "a".repeat(32),
        workload: "orders".to_owned(),
        requests: "header Coder is Bob".to_owned(),
        created: 1,
        log: PathBuf::from("/log"),
    }
}

fn place() -> (tempfile::TempDir, Place) {
    let home = tempfile::tempdir().expect("a folder");
    let place = Place::under(home.path(), "cluster:kind:shop");
    (home, place)
}

/// A process that remembered `record` and is gone: the file is there and not locked.
fn killed(place: &Place, name: &str, record: &Record) {
    fs::create_dir_all(&place.folder).expect("made");
    let text = serde_json::to_string(record).expect("JSON");
    fs::write(place.folder.join(format!("{name}.json")), text).expect("written");
}

#[test]
fn one_that_is_kept_runs_and_nobody_else_may_read_it() {
    let (_home, place) = place();
    let kept = place
        .prepare("orders-bob")
        .expect("prepared")
        .keep(&record(1))
        .expect("kept");
    let found = place.find("orders-bob").expect("there");
    assert_eq!(found.record, record(1));
    assert!(found.is_running());
    assert_eq!(place.running().len(), 1);
    for file in ["orders-bob.json", "orders-bob.log"] {
        let mode = fs::metadata(place.folder.join(file)).expect("there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
    }
    kept.forget();
    assert!(place.find("orders-bob").is_none());
    assert_eq!(place.logs(), ["orders-bob"], "the log stays");
}

#[test]
fn one_that_is_only_prepared_leaves_nothing() {
    let (_home, place) = place();
    drop(place.prepare("orders-bob").expect("prepared"));
    assert_eq!(fs::read_dir(&place.folder).expect("there").count(), 0);
}

#[test]
fn a_later_one_of_the_name_is_not_forgotten_by_the_earlier() {
    let (_home, place) = place();
    let keep = |pid| {
        let prepared = place.prepare("orders-bob").expect("prepared");
        prepared.keep(&record(pid)).expect("kept")
    };
    let first = keep(1);
    let _second = keep(2);
    first.forget();
    assert_eq!(place.find("orders-bob").expect("there").record.pid, 2);
}

#[tokio::test]
async fn a_process_that_only_has_the_number_is_never_signalled() {
    let (_home, place) = place();
    let mut innocent = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("it starts");
    killed(&place, "orders-bob", &record(innocent.id()));
    let found = place.find("orders-bob").expect("there");
    assert!(!found.is_running());
    assert!(!found.end(Duration::from_secs(5)).await);
    assert_eq!(innocent.try_wait().expect("asked"), None, "it still runs");
    innocent.kill().expect("killed");
    innocent.wait().expect("gone");
    found.forget();
    assert!(place.find("orders-bob").is_none());
}

#[tokio::test]
async fn a_process_of_another_machine_is_not_looked_for_by_its_number_here() {
    let (_home, place) = place();
    for host in [Some("another start of another machine".to_owned()), None] {
        let mut innocent = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("it starts");
        let elsewhere = Record {
            host,
            ..record(innocent.id())
        };
        let prepared = place.prepare("orders-bob").expect("prepared");
        // The lock is held, as by the other machine.
        let _kept = prepared.keep(&elsewhere).expect("kept");
        let found = place.find("orders-bob").expect("there");
        assert!(found.is_running() && !found.is_here(), "{found:?}");
        assert_eq!(place.running().len(), 0);
        assert!(!found.end(Duration::ZERO).await);
        innocent.kill().expect("killed");
        let end = innocent.wait().expect("gone");
        let killed = std::os::unix::process::ExitStatusExt::signal(&end);
        assert_eq!(killed, Some(Signal::KILL.as_raw()), "not by us: {found:?}");
    }
}

#[test]
fn names_that_are_no_labels_do_not_lead_out_of_the_folder() {
    let (home, place) = place();
    fs::create_dir_all(&place.folder).expect("made");
    killed(&place, "orders-bob", &record(1));
    fs::rename(
        place.folder.join("orders-bob.json"),
        home.path().join("injector/detached/outside.json"),
    )
    .expect("moved");
    assert!(place.find("../outside").is_none());
    assert_eq!(place.log("../outside"), None);
}

#[test]
fn backends_do_not_share_a_place() {
    let home = tempfile::tempdir().expect("a folder");
    let shop = Place::under(home.path(), "cluster:kind:shop");
    let other = Place::under(home.path(), "cluster:kind:shop-2");
    killed(&shop, "orders-bob", &record(1));
    assert!(other.find("orders-bob").is_none());
}

#[tokio::test]
async fn a_log_that_was_cut_short_is_followed_from_its_new_beginning() {
    let (_home, place) = place();
    let prepared = place.prepare("orders-bob").expect("prepared");
    let mut kept = prepared.keep(&record(1)).expect("kept");
    let path = place.log("orders-bob").expect("a label");
    kept.log.write_all(b"a long first line\n").expect("written");

    let mut log = File::open(&path).expect("there");
    let mut first = String::new();
    log.read_to_string(&mut first).expect("read");
    File::create(&path).expect("emptied");
    kept.log.write_all(b"second\n").expect("written");

    let mut rest = Vec::new();
    print_log(log, None, &mut rest).await.expect("printed");
    assert_eq!(String::from_utf8_lossy(&rest), "second\n");
}

#[test]
fn large_log_keeps_its_newest_lines() {
    let (_home, place) = place();
    let kept = place
        .prepare("orders-bob")
        .expect("prepared")
        .keep(&record(1))
        .expect("kept");
    let lines = |from: u64, to: u64| -> String {
        (from..to)
            .map(|number| format!("line {number:>90}\n"))
            .collect()
    };
    let log = place.log("orders-bob").expect("a label");
    (&kept.log)
        .write_all(lines(0, 100_000).as_bytes())
        .expect("written");
    kept.bound_log().expect("cut");
    assert_eq!(
        fs::metadata(&log).expect("there").len(),
        9_600_000,
        "not large"
    );
    (&kept.log)
        .write_all(lines(100_000, 200_000).as_bytes())
        .expect("written");
    kept.bound_log().expect("cut");
    (&kept.log)
        .write_all(lines(200_000, 200_001).as_bytes())
        .expect("written");
    let text = fs::read_to_string(&log).expect("there");
    assert!(text.len() < 2 << 20);
    assert!(text.ends_with(&lines(199_000, 200_001)) && text.starts_with("line "));
}

//! What the directory promises: nothing lost, nothing brought back, nothing half written.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use intercept_manifest::facts::{Module, Port, Protocol, Relay, WORKLOAD_VERSION};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const NOW: u64 = 1_795_347_600;

fn workload() -> Workload {
    let port = |name: &str, number| Port {
        name: name.to_owned(),
        number,
        app: ([127, 0, 0, 1], 1).into(),
        protocol: Protocol::Http,
        url: None,
    };
    Workload {
        version: WORKLOAD_VERSION,
        name: "orders".to_owned(),
        ports: vec![port("http", 8080), port("admin", 9090)],
        relay: Relay {
            data: ([127, 0, 0, 1], 2).into(),
            control: ([127, 0, 0, 1], 3).into(),
            outbound: None,
        },
        module: Module::new("/filter.wasm".into(), b""),
        limits: Limits::default(),
        admin: None,
    }
}

fn installed() -> (TempDir, Dir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::install(scratch.path(), &workload()).unwrap();
    (scratch, dir)
}

fn intercept(name: &str) -> Intercept {
    Intercept {
        port: 8080,
        cluster: format!("intercept|8080|{name}"),
        address: format!("address of {name}"),
        owner: "bob".to_owned(),
        created: NOW,
        headers: Vec::new(),
        baggage: Vec::new(),
        path: None,
        expires: NOW + 300,
    }
}

fn add(dir: &Dir, name: &str) {
    dir.add(name, &intercept(name), |_| Ok::<(), EnvoyDirError>(()))
        .unwrap();
}

fn entries(dir: &Dir) -> Vec<String> {
    dir.document().unwrap().intercepts.into_keys().collect()
}

fn clusters(dir: &Dir) -> Vec<String> {
    let text = fs::read(dir.path().join("clusters.json")).unwrap();
    let file: Value = serde_json::from_slice(&text).unwrap();
    file["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cluster| cluster["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_intercept_comes_with_its_cluster_and_goes_with_it() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    add(&dir, "alice");
    assert_eq!(entries(&dir), ["alice", "bob"]);
    assert_eq!(
        clusters(&dir),
        ["intercept|8080|alice", "intercept|8080|bob"]
    );
    assert_eq!(dir.remove("bob", None).unwrap(), Some(intercept("bob")));
    assert_eq!(entries(&dir), ["alice"]);
    // Requests that were decided before still need it.
    assert_eq!(
        clusters(&dir),
        ["intercept|8080|alice", "intercept|8080|bob"]
    );
    dir.clear_clusters(&["intercept|8080|bob"]).unwrap();
    assert_eq!(clusters(&dir), ["intercept|8080|alice"]);
    assert_eq!(dir.remove("bob", None).unwrap(), None);
}

#[test]
fn whoever_comes_or_goes_leaves_the_cluster_of_somebody_who_is_just_leaving() {
    let (_scratch, dir) = installed();
    add(&dir, "ann");
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    add(&dir, "carol");
    let mut all = clusters(&dir);
    all.sort();
    assert_eq!(
        all,
        [
            "intercept|8080|ann",
            "intercept|8080|bob",
            "intercept|8080|carol"
        ]
    );
    dir.remove("ann", None).unwrap();
    dir.clear_clusters(&["intercept|8080|bob"]).unwrap();
    let mut left = clusters(&dir);
    left.sort();
    assert_eq!(left, ["intercept|8080|ann", "intercept|8080|carol"]);
}

#[test]
fn an_entry_that_cannot_be_read_harms_nobody_else_and_can_be_removed() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    let path = dir.path().join("filter.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let text = "/resources/0/typed_config/config/configuration/value";
    let value = file.pointer_mut(text).unwrap();
    let mut document: Value = serde_json::from_str(value.as_str().unwrap()).unwrap();
    document["intercepts"]["bad"] = serde_json::json!({"port": "x"});
    *value = document.to_string().into();
    fs::write(&path, file.to_string()).unwrap();

    dir.renew("bob", "address of bob", NOW + 600).unwrap();
    add(&dir, "ann");
    assert_eq!(entries(&dir), ["ann", "bob"]);
    assert!(
        dir.configuration()
            .unwrap()
            .contains(r#""bad":{"port":"x"}"#)
    );
    dir.remove("bad", None).unwrap();
    assert!(!dir.configuration().unwrap().contains("bad"));
    assert_eq!(entries(&dir), ["ann", "bob"]);
}

#[test]
fn everything_that_many_add_at_once_is_there() {
    let (_scratch, dir) = installed();
    let names: Vec<String> = (0..40).map(|number| format!("dev-{number:02}")).collect();
    thread::scope(|scope| {
        for names in names.chunks(5) {
            // A directory opened by itself: as another process would.
            let dir = Dir::open(dir.path()).unwrap();
            scope.spawn(move || names.iter().for_each(|name| add(&dir, name)));
        }
    });
    assert_eq!(entries(&dir), names);
    assert_eq!(clusters(&dir).len(), names.len());
}

#[test]
fn only_one_of_two_who_exclude_each_other_gets_in() {
    let (_scratch, dir) = installed();
    let alone = |document: &Document| match document.intercepts.keys().next() {
        Some(_) => Err(EnvoyDirError::NotInstalled(PathBuf::new())),
        None => Ok(()),
    };
    let outcomes: Vec<bool> = thread::scope(|scope| {
        let threads: Vec<_> = ["a", "b", "c", "d"]
            .map(|name| scope.spawn(|| dir.add(name, &intercept(name), alone).is_ok()))
            .into();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(outcomes.iter().filter(|added| **added).count(), 1);
    assert_eq!(entries(&dir).len(), 1);
}

#[test]
fn whoever_sees_an_entry_sees_its_cluster_too() {
    let (_scratch, dir) = installed();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..40).for_each(|number| add(&dir, &format!("dev-{number}")));
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let entries = entries(&dir).len();
            assert!(clusters(&dir).len() >= entries);
        }
    });
}

#[test]
fn what_the_check_refuses_is_not_written() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    let before = fs::read(dir.path().join("filter.json")).unwrap();
    let refused = dir.add("alice", &intercept("alice"), |document| {
        assert_eq!(document.intercepts.len(), 1);
        Err(EnvoyDirError::NotInstalled("refused".into()))
    });
    assert!(refused.is_err());
    assert_eq!(fs::read(dir.path().join("filter.json")).unwrap(), before);
    assert_eq!(clusters(&dir), ["intercept|8080|bob"]);
}

#[test]
fn a_port_that_the_workload_does_not_have_is_refused() {
    let (_scratch, dir) = installed();
    let elsewhere = Intercept {
        port: 8081,
        ..intercept("bob")
    };
    let error = dir
        .add("bob", &elsewhere, |_| Ok::<(), EnvoyDirError>(()))
        .unwrap_err();
    assert_eq!(error.to_string(), "orders has no port 8081");
    assert!(entries(&dir).is_empty());
}

#[test]
fn a_renewal_moves_the_end_and_nothing_else() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    dir.renew("bob", "address of bob", NOW + 900).unwrap();
    let renewed = Intercept {
        expires: NOW + 900,
        ..intercept("bob")
    };
    assert_eq!(dir.document().unwrap().intercepts["bob"], renewed);
}

#[test]
fn a_renewal_never_brings_back_what_somebody_removed() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    let gone = dir.renew("bob", "address of bob", NOW + 900);
    assert!(matches!(gone, Err(RenewError::Gone)), "{gone:?}");
    assert!(entries(&dir).is_empty());
}

#[test]
fn neither_renewal_nor_removal_touches_another_tunnels_entry() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    let taken = dir.renew("bob", "older address", NOW + 900);
    assert!(
        matches!(&taken, Err(RenewError::Taken { owner }) if owner == "bob"),
        "{taken:?}"
    );
    assert_eq!(dir.remove("bob", Some("older address")).unwrap(), None);
    assert_eq!(dir.document().unwrap().intercepts["bob"], intercept("bob"));
    assert!(dir.remove("bob", Some("address of bob")).unwrap().is_some());
}

#[test]
fn what_nobody_renewed_for_ten_minutes_is_swept_away() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    let end = NOW + 300;
    assert!(dir.sweep(end + SWEEP_AFTER - 1).unwrap().is_empty());
    assert_eq!(entries(&dir), ["bob"]);
    assert_eq!(dir.sweep(end + SWEEP_AFTER).unwrap(), ["bob"]);
    assert!(entries(&dir).is_empty() && clusters(&dir).is_empty());
}

#[test]
fn a_cluster_without_an_entry_goes_after_a_while() {
    let (_scratch, dir) = installed();
    add(&dir, "ann");
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    for later in [0, KEEP_CLUSTER - 1] {
        dir.sweep(NOW + later).unwrap();
        assert_eq!(clusters(&dir), ["intercept|8080|ann", "intercept|8080|bob"]);
    }
    dir.sweep(NOW + KEEP_CLUSTER).unwrap();
    assert_eq!(clusters(&dir), ["intercept|8080|ann"]);
    assert!(!dir.path().join("orphans.json").exists());
}

#[test]
fn a_cluster_counts_anew_once_its_entry_came_back() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    dir.sweep(NOW).unwrap();
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    dir.sweep(NOW + KEEP_CLUSTER).unwrap();
    assert_eq!(clusters(&dir), ["intercept|8080|bob"]);
}

#[test]
fn an_intercept_on_another_port_leaves_the_first_cluster() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    let moved = Intercept {
        port: 9090,
        cluster: "intercept|9090|bob".to_owned(),
        ..intercept("bob")
    };
    dir.add("bob", &moved, |_| Ok::<(), EnvoyDirError>(()))
        .unwrap();
    assert_eq!(clusters(&dir), ["intercept|9090|bob", "intercept|8080|bob"]);
    // Requests that are held there outlast the later one.
    dir.remove("bob", None).unwrap();
    dir.clear_clusters(&["intercept|9090|bob"]).unwrap();
    assert_eq!(clusters(&dir), ["intercept|8080|bob"]);
    dir.clear_clusters(&["intercept|8080|bob"]).unwrap();
    assert_eq!(clusters(&dir), [""; 0]);
}

#[test]
fn installing_again_keeps_the_cluster_of_a_leaver() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    let dir = Dir::install(dir.path(), &workload()).unwrap();
    assert_eq!(clusters(&dir), ["intercept|8080|bob"]);
}

#[test]
fn a_command_that_comes_late_leaves_no_lock_behind() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    fs::write(dir.path().join("mine.yaml"), "mine").unwrap();
    dir.uninstall(NOW, true).unwrap();
    assert!(matches!(
        dir.remove("bob", None),
        Err(EnvoyDirError::NotInstalled(_))
    ));
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "mine.yaml");
}

#[test]
fn every_change_has_a_higher_version_and_no_change_has_none() {
    let (_scratch, dir) = installed();
    let version = || {
        let text = fs::read(dir.path().join("filter.json")).unwrap();
        intercept_manifest::envoy::version_in(&serde_json::from_slice(&text).unwrap()).unwrap()
    };
    let installed = version();
    add(&dir, "bob");
    assert_eq!(version(), installed + 1);
    dir.sweep(NOW).unwrap();
    dir.remove("alice", None).unwrap();
    assert_eq!(version(), installed + 1);
}

#[test]
fn nothing_but_the_four_files_is_left_behind() {
    let (_scratch, dir) = installed();
    add(&dir, "bob");
    dir.remove("bob", None).unwrap();
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [".lock", "clusters.json", "filter.json", "workload.json"]
    );
}

#[test]
fn envoy_may_read_what_it_watches_whoever_runs_it() {
    use std::os::unix::fs::PermissionsExt;
    let (_scratch, dir) = installed();
    for name in ["filter.json", "clusters.json"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o644, "{name}");
    }
}

/// How often this process has the lock file open, under the name it had.
fn openings(lock: &Path) -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target == lock)
        .count()
}

#[test]
fn who_waited_for_a_lock_that_was_removed_waits_for_the_new_one() {
    let (_scratch, dir) = installed();
    let path = fs::canonicalize(dir.path()).unwrap();
    let first = Locked::new(&path).unwrap();
    let came_in = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _locked = Locked::new(&path).unwrap();
            came_in.store(true, Ordering::Relaxed);
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while openings(&path.join(".lock")) < 2 {
            assert!(Instant::now() < deadline, "the other thread does not come");
        }
        fs::remove_file(path.join(".lock")).unwrap();
        let second = Locked::new(&path).unwrap();
        drop(first);
        let patience = Instant::now() + Duration::from_millis(100);
        while Instant::now() < patience {
            assert!(!came_in.load(Ordering::Relaxed), "two hold the lock");
        }
        drop(second);
    });
    assert!(came_in.load(Ordering::Relaxed));
}

#[test]
fn files_of_another_version_are_left_alone() {
    let (_scratch, dir) = installed();
    let path = dir.path().join("workload.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
    let error = Dir::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("workload.json: version: expected 1, found 2"),
        "{error}"
    );
}

#[test]
fn a_document_without_intercepts_has_none() {
    let (_scratch, dir) = installed();
    let path = dir.path().join("filter.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    file["resources"][0]["typed_config"]["config"]["configuration"]["value"] =
        r#"{"version": 1}"#.into();
    fs::write(&path, file.to_string()).unwrap();
    assert!(entries(&dir).is_empty());
    add(&dir, "bob");
    assert_eq!(entries(&dir), ["bob"]);
}

#[test]
fn a_file_that_is_not_ours_is_named() {
    let (_scratch, dir) = installed();
    let path = dir.path().join("filter.json");
    let with = |document: &str| {
        let file = fs::read(&path).unwrap();
        let mut file: Value = serde_json::from_slice(&file).unwrap();
        file["resources"][0]["typed_config"]["config"]["configuration"]["value"] = document.into();
        file.to_string()
    };
    let (list, no_map) = (with("[]"), with(r#"{"version": 1, "intercepts": []}"#));
    for (text, expected) in [
        ("{", "EOF while parsing"),
        ("{}", "expected the filter's configuration"),
        (list.as_str(), "expected"),
        (no_map.as_str(), "expected a map"),
    ] {
        fs::write(&path, text).unwrap();
        let error = dir.document().unwrap_err().to_string();
        assert!(
            error.contains("filter.json: ") && error.contains(expected),
            "{error}"
        );
        assert!(dir.remove("bob", None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

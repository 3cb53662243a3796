//! An intercept's life, from the command line: the real binary, a real directory and a real relay in this process. What Envoy makes of it is tested elsewhere.

mod support;

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use support::{Place, Running, developer_server, now, patient_server, wait_until};

fn port(port: u16) -> String {
    format!("--port={port}")
}

#[test]
fn a_live_intercept_serves_requests_and_logs_each() {
    let place = Place::new();
    let server = port(developer_server("from the developer machine"));
    let session = place.start(
        "bob",
        &["intercept", "orders", &server, "--http-header=Coder=Bob"],
    );
    session.is_live();
    let entry = place.intercepts().remove("orders-bob").expect("written");
    assert_eq!(
        (entry.port, entry.owner.as_str(), entry.headers.len()),
        (8080, "bob", 1)
    );

    let answer = place.request(&entry.address, "/api?x=1");
    assert!(answer.contains("from the developer machine"), "{answer}");
    assert!(
        answer.contains("x-intercept-served-by: orders-bob"),
        "{answer}"
    );
    session.says(" GET /api?x=1 200 ");
    assert!(!session.stderr().contains('\u{1b}'), "no colour in a pipe");

    session.signal(Signal::INT);
    assert_eq!(session.end().code, Some(0));
    assert!(place.intercepts().is_empty());
}

#[test]
fn every_signal_undoes_the_intercept() {
    let place = Place::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let session = place.start("bob", &["intercept", "orders", "--port=1"]);
        session.is_live();
        assert_eq!(place.intercepts().len(), 1);
        session.signal(signal);
        let ran = session.end();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(place.intercepts().is_empty(), "{signal:?}");
    }
}

#[test]
fn the_child_knows_its_intercept_and_gives_the_exit_code() {
    let place = Place::new();
    let files = place.envoy();
    let script = format!(
        "printf %s \"$INJECTOR_INTERCEPT\"; cat {}/filter.json; exit 7",
        files.display()
    );
    let ran = place.run(&["intercept", "orders", "--port=1", "--", "sh", "-c", &script]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.stdout.starts_with("orders-bob"), "{ran:?}");
    assert!(
        ran.stdout.contains("intercept|8080|orders-bob"),
        "the entry is there while the child runs: {ran:?}"
    );
    assert!(
        !ran.stderr.contains("nothing listens"),
        "the child may be the server: {ran:?}"
    );
    assert!(place.intercepts().is_empty());
}

#[test]
fn a_child_that_a_signal_kills_gives_128_and_its_number() {
    let place = Place::new();
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--",
        "sh",
        "-c",
        "kill -9 $$",
    ]);
    assert_eq!(ran.code, Some(137), "{ran:?}");
}

/// An intercept for as long as this shell script runs, which has said that it is ready.
fn with_child(place: &Place, script: &str) -> Running {
    let session = place.start(
        "bob",
        &["intercept", "orders", "--port=1", "--", "sh", "-c", script],
    );
    wait_until(
        || session.stdout().contains("ready"),
        || "no child".to_owned(),
    );
    session
}

#[test]
fn signals_are_passed_to_the_child_and_its_exit_code_counts() {
    let place = Place::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let script = "trap 'exit 9' INT TERM HUP; echo ready; while :; do sleep 0.01; done";
        let session = with_child(&place, script);
        session.signal(signal);
        let ran = session.end();
        assert_eq!(ran.code, Some(9), "{signal:?} {ran:?}");
        assert!(place.intercepts().is_empty());
    }
}

/// A shell that is closed hangs up twice in a moment, which cuts nothing short.
#[test]
fn a_terminal_may_hang_up_twice() {
    let place = Place::new();
    let script = "trap 'sleep 1; exit 9' HUP; echo ready; while :; do sleep 0.01; done";
    let session = with_child(&place, script);
    session.signal(Signal::HUP);
    wait_until(|| place.intercepts().is_empty(), || "not undone".to_owned());
    session.signal(Signal::HUP);
    let ran = session.end();
    assert_eq!(ran.code, Some(9), "{ran:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let script = "trap '' INT; echo ready; sleep 2";
    let session = with_child(&place, script);
    session.signal(Signal::INT);
    wait_until(|| place.intercepts().is_empty(), || "not undone".to_owned());
    session.signal(Signal::INT);
    assert_eq!(session.end().code, Some(130));
}

#[test]
fn a_child_that_cannot_start_leaves_nothing_behind() {
    let place = Place::new();
    let script = place.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("ours");
    let script = script.to_string_lossy();
    let ran = place.run(&["intercept", "orders", "--port=1", "--", &script]);
    assert_eq!(ran.code, Some(126), "{ran:?}");
    assert!(
        ran.stderr.contains(&format!("error: -- {script}: ")),
        "{ran:?}"
    );
    assert!(place.intercepts().is_empty());
}

#[test]
fn a_child_does_not_outlive_a_command_that_is_killed() {
    let place = Place::new();
    let script = "echo ready $$; exec sleep 600";
    let session = with_child(&place, script);
    let said = session.stdout();
    let child = said.trim().strip_prefix("ready ").expect("its number");
    let stat = format!("/proc/{child}/stat");
    session.signal(Signal::KILL);
    // A zombie, which its parent has not reaped yet, counts as gone.
    let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    wait_until(|| !runs(), || "the child lives on".to_owned());
}

#[test]
fn a_name_whose_tunnel_is_up_needs_replace() {
    let place = Place::new();
    let arguments = ["intercept", "orders", "--port=1"];
    let first = place.start("bob", &arguments);
    first.is_live();
    // The lease may be renewed at any time.
    let there = || {
        let mut there = place.intercepts();
        there.values_mut().for_each(|entry| entry.expires = 0);
        there
    };
    let before = there();

    let refused = place.run(&arguments);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--replace"), "{refused:?}");
    assert_eq!(there(), before);

    let second = place.start("bob", &["intercept", "orders", "--port=1", "--replace"]);
    second.is_live();
    let after = there();
    assert_ne!(after["orders-bob"].address, before["orders-bob"].address);
    assert_eq!(after["orders-bob"].headers, before["orders-bob"].headers);

    let first = first.end();
    assert_eq!(first.code, Some(1), "{first:?}");
    assert!(
        first.stderr.contains("replaced by another intercept"),
        "{first:?}"
    );
    assert_eq!(
        there(),
        after,
        "the old one's undo touches only its own entry"
    );
}

#[test]
fn a_name_of_whose_tunnel_no_relay_says_anything_needs_replace_while_its_lease_runs() {
    let place = Place::without_relay();
    let there = place.add("orders-bob", "bob", &[("Coder", "Bob")]);
    let arguments = ["intercept", "orders", "--port=1"];
    let refused = place.run(&arguments);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in [
        "orders-bob: your intercept of this name exists, and it is unknown whether its tunnel is up",
        "--replace",
        "injector leave orders-bob",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    let dry = |more: &[&str]| place.run(&[&arguments[..], &["--dry-run"], more].concat());
    assert_eq!(dry(&[]).code, Some(1));
    let by_force = dry(&["--replace"]);
    assert_eq!(by_force.code, Some(0), "{by_force:?}");
    place
        .dir()
        .renew("orders-bob", &there.address, now() - 1)
        .expect("moved");
    let over = dry(&[]);
    assert_eq!(over.code, Some(0), "{over:?}");
}

#[test]
fn a_name_whose_tunnel_is_away_is_replaced_and_keeps_its_header() {
    let place = Place::new();
    let id = "0b6f9f1c-6a0e-4f0e-9d0a-0c1d2e3f4a5b";
    place.add("orders-bob", "bob", &[("x-intercept-id", id)]);
    let session = place.start("bob", &["intercept", "orders", "--port=1"]);
    session.is_live();
    let entry = place.intercepts().remove("orders-bob").expect("there");
    assert_eq!(entry.headers[0].value, id);
    session.says(&format!(
        "curl -H 'x-intercept-id: {id}' http://127.0.0.1:8080/"
    ));
}

#[test]
fn the_automatic_header_stays_from_one_start_to_the_next() {
    let place = Place::new();
    let id = || {
        let ran = place.run(&[
            "intercept",
            "orders",
            "--port=1",
            "-o",
            "json",
            "-q",
            "--",
            "true",
        ]);
        let live: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
        live["headers"][0]["value"]
            .as_str()
            .expect("a header")
            .to_owned()
    };
    let first = id();
    assert_eq!(
        uuid::Uuid::try_parse(&first).map(|id| id.get_version_num()),
        Ok(4)
    );
    assert_eq!(id(), first);
}

#[test]
fn another_developers_name_is_not_taken() {
    let place = Place::new();
    place.add("shared", "alice", &[("Coder", "Alice")]);
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--name=shared",
        "--replace",
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("alice has an intercept of this name"),
        "{ran:?}"
    );
    assert_eq!(place.intercepts()["shared"].owner, "alice");
}

#[test]
fn an_intercept_that_somebody_removed_is_not_brought_back() {
    let place = Place::new();
    let session = place.start("bob", &["intercept", "orders", "--port=1"]);
    session.is_live();
    let left = support::ran(&mut place.command("alice", &["leave", "--force", "orders-bob"]));
    assert_eq!(left.code, Some(0), "{left:?}");
    let ran = session.end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("this intercept was removed"), "{ran:?}");
    assert!(place.intercepts().is_empty());
}

#[test]
fn a_lease_is_renewed_in_time() {
    let place = Place::new();
    let session = place.start("bob", &["intercept", "orders", "--port=1", "--verbose"]);
    session.is_live();
    let before = place.intercepts().remove("orders-bob").expect("there");
    // Less than half is left.
    place
        .dir()
        .renew("orders-bob", &before.address, now() + 100)
        .expect("moved");
    session.says("lease renewed for 1 h");
    let after = place.intercepts().remove("orders-bob").expect("there");
    assert!(after.expires >= before.expires);
    assert_eq!(after.address, before.address);
}

#[test]
fn a_lease_is_shortened_when_the_operator_lowers_the_limit() {
    let place = Place::new();
    let session = place.start(
        "bob",
        &["intercept", "orders", "--port=1", "--lease=8h", "--verbose"],
    );
    session.is_live();
    let before = place.intercepts().remove("orders-bob").expect("there");
    assert!(before.expires > now() + 7 * 3_600);
    place.limit(|limits| limits.max_lease_seconds = 3_600);
    session.says("warning: the operator now allows leases of at most 1 h (limits.max_lease_seconds): this one of 8 h is renewed for 1 h each time");
    session.says("lease renewed for 1 h");
    let after = place.intercepts().remove("orders-bob").expect("there");
    assert!(after.expires <= now() + 3_600, "{after:?}");
    assert_eq!(after.address, before.address);
    // It is kept, and said once.
    place
        .dir()
        .renew("orders-bob", &before.address, now() + 100)
        .expect("moved");
    wait_until(
        || place.intercepts()["orders-bob"].expires > now() + 3_000,
        || "not renewed".to_owned(),
    );
    assert_eq!(session.stderr().matches("the operator now").count(), 1);
    // After a lapse, too, it is asked for no more than that.
    place
        .dir()
        .renew("orders-bob", &before.address, now() - 60)
        .expect("moved");
    session.says("the intercept is back");
    let back = place.intercepts().remove("orders-bob").expect("there");
    assert!(back.expires <= now() + 3_600, "{back:?}");
}

#[test]
fn an_intercept_that_the_operator_forbids_ends_with_the_reason() {
    let place = Place::new();
    let all = ["intercept", "orders", "--port=1", "--http-header=all"];
    let session = place.start("bob", &all);
    session.is_live();
    place.limit(|limits| limits.allow_all = false);
    let ran = session.end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let why = "error: the operator has changed the limits: orders-bob: an intercept of all requests is not allowed here (limits.allow_all)\n\nhint: ";
    assert!(ran.stderr.contains(why), "{ran:?}");
    assert!(place.intercepts().is_empty());

    let coder = ["intercept", "orders", "--port=1", "--http-header=Coder=Bob"];
    let session = place.start("bob", &coder);
    session.is_live();
    place.limit(|limits| limits.header_names = Some(vec!["x-intercept-id".to_owned()]));
    let ran = session.end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("`Coder` is not among the header names"),
        "{ran:?}"
    );
    assert!(place.intercepts().is_empty());
}

#[test]
fn a_request_under_way_ends_before_the_command_does() {
    let place = Place::new();
    let (server, arrived, release) = patient_server();
    let server = port(server);
    let session = place.start("bob", &["intercept", "orders", &server]);
    session.is_live();
    let address = place.intercepts()["orders-bob"].address.clone();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| place.request(&address, "/slow"));
        arrived.recv().expect("the request arrives");
        session.signal(Signal::INT);
        wait_until(|| place.intercepts().is_empty(), || "not undone".to_owned());
        release.send(()).expect("the server waits");
        let answer = request.join().expect("answered");
        assert!(answer.ends_with("at last"), "{answer}");
    });
    assert_eq!(session.end().code, Some(0));
}

#[test]
fn leave_takes_no_cluster_from_a_request_that_is_under_way() {
    let place = Place::new();
    let (server, arrived, release) = patient_server();
    let server = port(server);
    let session = place.start("bob", &["intercept", "orders", &server]);
    session.is_live();
    let address = place.intercepts()["orders-bob"].address.clone();
    let has_cluster = || {
        let clusters = std::fs::read_to_string(place.envoy().join("clusters.json"));
        clusters
            .expect("there")
            .contains("intercept|8080|orders-bob")
    };
    std::thread::scope(|scope| {
        let request = scope.spawn(|| place.request(&address, "/slow"));
        arrived.recv().expect("the request arrives");
        let left = place.run(&["leave", "orders-bob"]);
        assert_eq!(left.stdout, "orders-bob removed\n", "{left:?}");
        assert!(has_cluster(), "{left:?}");
        release.send(()).expect("the server waits");
        let answer = request.join().expect("answered");
        assert!(answer.ends_with("at last"), "{answer}");
    });
    // It notices that it was left, and clears away.
    assert_eq!(session.end().code, Some(1));
    assert!(!has_cluster());
}

#[test]
fn after_a_lapse_it_comes_back_under_the_same_name_and_header() {
    let place = Place::new();
    let session = place.start("bob", &["intercept", "orders", "--port=1"]);
    session.is_live();
    let before = place.intercepts().remove("orders-bob").expect("there");
    // As after a long sleep: the lease is over.
    place
        .dir()
        .renew("orders-bob", &before.address, now() - 60)
        .expect("moved");
    session.says("the intercept is back");
    let after = place.intercepts().remove("orders-bob").expect("there");
    assert_eq!(after.headers, before.headers);
    assert!(after.expires > now());
}

#[test]
fn after_a_lapse_conflicts_count_again() {
    let place = Place::new();
    let session = place.start(
        "bob",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Bob"],
    );
    session.is_live();
    let before = place.intercepts().remove("orders-bob").expect("there");
    place.add("orders-alice", "alice", &[("Coder", "B.*")]);
    place
        .dir()
        .renew("orders-bob", &before.address, now() - 60)
        .expect("moved");
    let ran = session.end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .contains("orders-alice of alice matches the same requests"),
        "{ran:?}"
    );
}

#[test]
fn intercepts_without_room_are_refused() {
    let place = Place::new();
    for number in 0..20 {
        let value = format!("bob-{number}");
        place.add(&value, "bob", &[("Coder", &value)]);
    }
    let arguments = ["--port=1", "--http-header=Coder=new", "--", "true"];
    let intercept = |user: &str| {
        let session = place.start(user, &[&["intercept", "orders"], &arguments[..]].concat());
        session.end()
    };
    let refused = intercept("bob");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "one owner has at most 20 intercepts on a workload";
    assert!(refused.stderr.contains(why), "{refused:?}");
    assert!(
        refused.stderr.contains("hint: injector list"),
        "{refused:?}"
    );
    assert_eq!(place.intercepts().len(), 20);
    let allowed = intercept("alice");
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
}

/// 100 developers whose regexes are more than what all together may have: what is left is less than one of them takes.
#[test]
fn regexes_without_room_are_refused() {
    const VALUE: &str = "[a-z]{120}";
    let place = Place::new();
    let names: Vec<String> = (0..16).map(|number| format!("x-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (&**name, VALUE)).collect();
    for number in 0..100 {
        let user = format!("user-{number}");
        place.add(&user, &user, &headers);
    }
    let mut command = vec!["intercept".to_owned(), "orders".into(), "--port=1".into()];
    command.extend(
        names
            .iter()
            .map(|name| format!("--http-header={name}={VALUE}")),
    );
    let command: Vec<_> = command.iter().map(|argument| &**argument).collect();
    let refused = place.run(&command);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "the regexes of all intercepts here are larger than";
    assert!(refused.stderr.contains(why), "{refused:?}");
    assert_eq!(place.intercepts().len(), 100);
}

#[test]
fn intercepts_that_can_meet_are_refused_unless_allowed() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("Coder", "B.*")]);
    let arguments = [
        "intercept",
        "orders",
        "--port=1",
        "--http-header=Coder=Bob",
        "--",
        "true",
    ];
    let refused = place.run(&arguments);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["orders-alice", "alice", "Coder: Bob", "--allow-overlap"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(place.intercepts().len(), 1);

    let allowed = place.run(&[&["intercept", "--allow-overlap"], &arguments[1..]].concat());
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
}

#[test]
fn intercepts_that_meet_only_with_both_headers_are_allowed_with_a_note() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("X-Team", "red")]);
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--http-header=Coder=Bob",
        "--",
        "true",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("note:") && ran.stderr.contains("orders-alice (alice)"),
        "{ran:?}"
    );
}

#[test]
fn intercepts_that_cannot_meet_are_silent() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("Coder", "Alice")]);
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--http-header=Coder=Bob",
        "--",
        "true",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stderr.contains("alice"), "{ran:?}");
}

#[test]
fn without_a_relay_it_fails_and_names_the_address() {
    let place = Place::without_relay();
    let ran = place.run(&["intercept", "orders", "--port=1"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains(&format!("relay {}", place.control)),
        "{ran:?}"
    );
    assert!(place.intercepts().is_empty());
}

#[test]
fn a_server_that_is_not_there_yet_is_a_warning() {
    let place = Place::new();
    let session = place.start("bob", &["intercept", "orders", "--port=1"]);
    session.is_live();
    assert!(
        session
            .stderr()
            .contains("warning: nothing listens on port 1"),
        "{}",
        session.stderr()
    );
    let address = place.intercepts()["orders-bob"].address.clone();
    let answer = place.request(&address, "/");
    assert!(
        answer.contains("x-intercept-unavailable: nothing-listens"),
        "{answer}"
    );
    session.says("fell back to the cluster (port ");
}

#[test]
fn all_is_said_loudly() {
    let place = Place::new();
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--http-header=all",
        "--",
        "true",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("EVERYBODY"), "{ran:?}");
}

#[test]
fn quiet_says_nothing_and_json_is_one_object() {
    let place = Place::new();
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--quiet",
        "-o",
        "json",
        "--",
        "true",
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let live: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(live["name"], "orders-bob");
    assert_eq!(live["developer_port"], 1);
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = Place::new();
    let ran = place.run(&["intercept", "orders", "--port=1", "--dry-run", "-o", "json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let written: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(written["intercepts"]["orders-bob"]["port"], 8080);
    assert_eq!(written["cluster"]["name"], "intercept|8080|orders-bob");
    assert!(place.intercepts().is_empty() && !place.remembers());
}

#[test]
fn what_nobody_renewed_for_long_is_swept_away() {
    let place = Place::new();
    let old = place.add("old", "alice", &[("Coder", "Alice")]);
    place
        .dir()
        .renew("old", &old.address, now() - 601)
        .expect("moved");
    assert_eq!(place.run(&["list"]).code, Some(0));
    assert!(place.intercepts().is_empty());
}

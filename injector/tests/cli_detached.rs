//! Intercepts in the background, from the command line: the real binary, a real directory and a real relay in this process.

mod support;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, getsid, kill_process};
use serde_json::Value;
use support::{EndedOnFailure, Place, Ran, developer_server, ran, wait_until};

const DETACH: &[&str] = &[
    "intercept",
    "orders",
    "--port=1",
    "--http-header=Coder=Bob",
    "--detach",
];

/// What is remembered of `orders-bob`.
fn remembered(place: &Place, extension: &str) -> Option<PathBuf> {
    let folder = place.path().join("home/.local/state/injector/detached");
    let folders = std::fs::read_dir(folder).ok()?;
    let mut files = folders.map(|folder| {
        let name = format!("orders-bob.{extension}");
        folder.expect("readable").path().join(name)
    });
    files.find(|file| file.exists())
}

fn pid(place: &Place) -> Pid {
    let text = std::fs::read_to_string(remembered(place, "json").expect("remembered"));
    let record: Value = serde_json::from_str(&text.expect("readable")).expect("JSON");
    let pid = record["pid"].as_i64().expect("a number");
    Pid::from_raw(i32::try_from(pid).expect("a process")).expect("a process")
}

/// A zombie, which its parent has not reaped yet, does not count as alive.
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        !state.is_some_and(|state| state.starts_with('Z'))
    })
}

#[track_caller]
fn wait_for_end(pid: Pid) {
    wait_until(|| !is_alive(pid), || "it still runs".to_owned());
}

#[track_caller]
fn detached(place: &Place) -> Ran {
    let ran = place.run(DETACH);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

#[test]
fn it_lives_on_when_the_command_has_ended_and_logs_every_request() {
    let place = Place::new();
    let port = format!("--port={}", developer_server("from the developer machine"));
    let ran = place.run(&[
        "intercept",
        "orders",
        &port,
        "--http-header=Coder=Bob",
        "--detach",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in [
        "orders-bob applied",
        "curl -H 'Coder: Bob'",
        "goes on in the background",
        "injector logs orders-bob -f",
        "injector leave orders-bob",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    let entry = place.intercepts().remove("orders-bob").expect("written");
    let answer = place.request(&entry.address, "/api?x=1");
    assert!(answer.contains("from the developer machine"), "{answer}");
    let logged = || place.run(&["logs", "orders-bob"]);
    wait_until(
        || logged().stdout.contains(" GET /api?x=1 200 "),
        || format!("{:?}", logged()),
    );
    let log = logged().stdout;
    assert!(log.starts_with("20") && !log.contains('\u{1b}'), "{log}");
    assert!(log.contains("header Coder is Bob"), "{log}");

    let process = pid(&place);
    let left = place.run(&["leave", "orders-bob"]);
    assert_eq!(
        (left.code, left.stdout.as_str()),
        (Some(0), "orders-bob removed\n"),
        "{left:?}"
    );
    wait_for_end(process);
    assert!(place.intercepts().is_empty());
    assert_eq!(remembered(&place, "json"), None);
    let log = logged();
    assert!(log.stdout.contains("ends: it was told to"), "{log:?}");
    assert!(log.stdout.contains("orders-bob removed"), "{log:?}");
}

#[test]
fn a_kubeconfig_that_a_shell_gives_by_a_descriptor_is_read() {
    let place = Place::new();
    let file = place.path().join("kubeconfig");
    // No server listens there; an error that names it proves that the file was read.
    let text = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [], "contexts": [{"name": "c", "context": {"cluster": "k", "user": ""}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}]}"#;
    std::fs::write(&file, text).expect("written");
    for script in [
        r#""$@" --kubeconfig /dev/fd/9 9<"$FILE""#,
        r#""$@" --kubeconfig=/dev/fd/9 9<"$FILE""#,
        r#"KUBECONFIG=/dev/fd/9 "$@" 9<"$FILE""#,
    ] {
        let told = place.command("bob", DETACH);
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]);
        shell.arg(told.get_program()).args(told.get_args());
        shell.env("FILE", &file).env("HOME", place.path());
        shell.env_remove("INJECTOR_ENVOY").env_remove("KUBECONFIG");
        let ran = ran(&mut shell);
        assert_eq!(ran.code, Some(1), "{script}: {ran:?}");
        assert!(
            ran.stderr.starts_with("error: http://127.0.0.1:1: "),
            "{script}: {ran:?}"
        );
    }
}

#[test]
fn it_belongs_to_no_terminal_and_its_end_means_nothing_to_it() {
    let place = Place::new();
    detached(&place);
    let process = pid(&place);
    assert_eq!(getsid(Some(process)).expect("it runs"), process);
    for number in 0..3 {
        let file = format!("/proc/{}/fd/{number}", process.as_raw_pid());
        let file = std::fs::read_link(file).expect("open");
        let is_own = file.ends_with("orders-bob.log") || file.ends_with("null");
        assert!(is_own, "{file:?}");
    }
    kill_process(process, Signal::HUP).expect("it runs");
    // What comes after it is still done: a request gets through.
    let address = place.intercepts()["orders-bob"].address.clone();
    let answer = place.request(&address, "/");
    assert!(answer.contains("nothing-listens"), "{answer}");
    let log = place.run(&["logs", "orders-bob"]).stdout;
    assert!(!log.contains("ends: ") && is_alive(process), "{log}");
    kill_process(process, Signal::TERM).expect("it runs");
    wait_for_end(process);
    assert!(place.intercepts().is_empty());
}

#[test]
fn one_that_does_not_become_live_fails_as_in_the_foreground_and_leaves_nothing() {
    let place = Place::without_relay();
    let background = place.run(DETACH);
    let foreground = place.run(&DETACH[..4]);
    assert_eq!(background.code, Some(1), "{background:?}");
    let error = format!("error: relay {}: ", place.control);
    assert!(background.stderr.contains(&error), "{background:?}");
    assert!(foreground.stderr.contains(&error), "{foreground:?}");
    assert!(place.intercepts().is_empty());
    assert_eq!(
        (remembered(&place, "json"), remembered(&place, "log")),
        (None, None)
    );
    let refused = place.run(&["intercept", "carts", "--detach"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(
        refused.stderr.matches("error: ").count(),
        1,
        "said once: {refused:?}"
    );
}

#[test]
fn a_signal_before_it_lives_ends_it_and_is_no_success() {
    let place = Place::without_relay();
    let session = place.start("bob", DETACH);
    let folder = place.path().join("home/.local/state/injector/detached");
    // From here on it tries to open its tunnel.
    wait_until(|| folder.exists(), || session.stderr());
    session.signal(Signal::TERM);
    let ran = session.end();
    assert_eq!(ran.code, Some(143), "{ran:?}");
    assert!(place.intercepts().is_empty());
    assert_eq!(remembered(&place, "log"), None);
}

#[test]
fn what_it_prints_for_programs_is_whole_and_nothing_else() {
    let place = Place::new();
    let ran = place.run(&[DETACH, &["-q", "-o", "json"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let live: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(live["name"], "orders-bob");
    let address = place.intercepts()["orders-bob"].address.clone();
    place.request(&address, "/quiet");
    let logged = || place.run(&["logs", "orders-bob"]).stdout;
    wait_until(|| logged().contains(" GET /quiet "), logged);
    place.run(&["leave", "--all"]);
}

#[test]
fn a_command_cannot_run_beside_it() {
    let place = Place::new();
    let ran = place.run(&[DETACH, &["--", "true"]].concat());
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("error: --detach: "), "{ran:?}");
    assert!(place.intercepts().is_empty());
}

#[test]
fn list_and_status_tell_that_it_is_detached_and_leave_all_ends_it() {
    let place = Place::new();
    place.add("orders-eve", "bob", &[("Coder", "Eve")]);
    detached(&place);
    let process = pid(&place);
    let listed = place.run(&["list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["detached"]["pid"], process.as_raw_pid());
    assert_eq!(listed[1].get("detached"), None);
    let shown = place.run(&["list"]).stdout;
    assert!(shown.contains("up, detached"), "{shown}");
    let shown = place.run(&["status", "orders-bob"]).stdout;
    assert!(
        shown.contains(&format!("process {}, log ", process.as_raw_pid())),
        "{shown}"
    );
    let left = place.run(&["leave", "--all"]);
    assert_eq!(
        left.stdout, "orders-bob removed\norders-eve removed\n",
        "{left:?}"
    );
    wait_for_end(process);
}

#[test]
fn one_that_was_killed_is_left_like_any_other_and_its_log_stays() {
    let place = Place::new();
    detached(&place);
    let process = pid(&place);
    kill_process(process, Signal::KILL).expect("it runs");
    wait_for_end(process);
    let shown = place.run(&["list"]).stdout;
    assert!(!shown.contains("detached"), "{shown}");
    assert!(remembered(&place, "json").is_some());
    let left = place.run(&["leave", "orders-bob"]);
    assert_eq!(left.stdout, "orders-bob removed\n", "{left:?}");
    assert!(place.intercepts().is_empty());
    assert_eq!(remembered(&place, "json"), None);
    let log = place.run(&["logs", "orders-bob", "-f"]);
    assert_eq!(log.code, Some(0), "following one that has ended ends");
    assert!(log.stdout.contains("intercepts port 8080"), "{log:?}");
}

#[test]
fn somebody_elses_intercept_of_the_name_does_not_end_the_process() {
    let place = Place::new();
    detached(&place);
    let process = pid(&place);
    let left = ran(&mut place.command("alice", &["leave", "orders-bob"]));
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(is_alive(process));
    place.run(&["leave", "orders-bob"]);
}

#[test]
fn a_log_is_followed_until_the_intercept_ends() {
    let place = Place::new();
    detached(&place);
    let following = place.start("bob", &["logs", "orders-bob", "--follow"]);
    wait_until(
        || following.stdout().contains("intercepts port 8080"),
        || following.stderr(),
    );
    let address = place.intercepts()["orders-bob"].address.clone();
    place.request(&address, "/while");
    wait_until(
        || following.stdout().contains(" GET /while "),
        || following.stdout(),
    );
    // Once the entry is removed, the process exits by itself and logs the reason.
    let entry = place.intercepts().remove("orders-bob").expect("there");
    place
        .dir()
        .remove("orders-bob", Some(&entry.address))
        .expect("removed");
    let followed = following.end();
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(
        followed
            .stdout
            .contains("error: orders-bob: this intercept was removed"),
        "the last word is in it: {followed:?}"
    );
}

/// Is a SIGTERM pending for this process?
fn is_told_to_end(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
    let status = status.expect("it is there");
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let pending = u64::from_str_radix(pending.expect("said").trim(), 16).expect("a mask");
    pending & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

#[test]
fn leave_ends_one_whose_entry_is_gone_already() {
    let place = Place::new();
    detached(&place);
    let process = pid(&place);
    let _guard = EndedOnFailure(process);
    // Held still, so that it cannot notice by itself.
    kill_process(process, Signal::STOP).expect("it runs");
    place.dir().remove("orders-bob", None).expect("removed");
    let leaving = place.start("bob", &["leave", "orders-bob"]);
    wait_until(|| is_told_to_end(process), || leaving.stderr());
    kill_process(process, Signal::CONT).expect("it runs");
    let left = leaving.end();
    assert_eq!(
        (left.code, left.stdout.as_str()),
        (Some(0), "orders-bob removed\n"),
        "{left:?}"
    );
    wait_for_end(process);
}

/// The only child of a process.
fn child_of(pid: u32) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let child = children
        .expect("it runs")
        .trim()
        .parse()
        .expect("one child");
    Pid::from_raw(child).expect("a process")
}

#[test]
fn one_that_nobody_waits_for_any_more_does_not_stay() {
    // A way to the relay that this test opens.
    let gate = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = gate.local_addr().expect("bound");
    let mut relay = None;
    let place = Place::with(|workload| {
        relay = Some(std::mem::replace(&mut workload.relay.control, address));
    });
    let session = place.start("bob", DETACH);
    let (near, _) = gate.accept().expect("it opens its tunnel");
    let copy = child_of(session.pid());
    session.signal(Signal::KILL);
    wait_for_end(Pid::from_raw(session.pid().try_into().expect("small")).expect("a process"));
    let far = TcpStream::connect(relay.expect("said")).expect("the relay listens");
    for (mut from, mut to) in [
        (
            near.try_clone().expect("open"),
            far.try_clone().expect("open"),
        ),
        (far, near),
    ] {
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    wait_for_end(copy);
    assert!(remembered(&place, "log").is_some(), "it did become live");
    assert_eq!(remembered(&place, "json"), None);
    assert!(place.intercepts().is_empty());
}

#[test]
fn the_same_name_again_needs_replace_and_then_has_the_log_to_itself() {
    let place = Place::new();
    detached(&place);
    let first = pid(&place);
    let refused = place.run(DETACH);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--replace"), "{refused:?}");
    assert_eq!(pid(&place), first, "the refused one left everything alone");

    let again = place.run(&[DETACH, &["--replace"]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
    let second = pid(&place);
    assert_ne!(second, first);
    wait_for_end(first);
    assert_eq!(
        pid(&place),
        second,
        "the first one's end forgot only itself"
    );
    let log = place.run(&["logs", "orders-bob"]).stdout;
    assert!(
        log.contains(&format!("process {}", second.as_raw_pid())),
        "{log}"
    );
    assert!(!log.contains("replaced by another intercept"), "{log}");
    place.run(&["leave", "orders-bob"]);
    wait_for_end(second);
}

#[test]
fn logs_of_an_unknown_name_says_which_there_are() {
    let place = Place::new();
    let none = place.run(&["logs", "orders-bob"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(
        none.stderr.contains("there is no log here of any"),
        "{none:?}"
    );
    detached(&place);
    let other = place.run(&["logs", "orders-eve"]);
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(
        other.stderr.contains("there is a log of orders-bob"),
        "{other:?}"
    );
    std::fs::remove_file(remembered(&place, "log").expect("there")).expect("removed");
    let gone = place.run(&["logs", "orders-bob"]);
    assert!(
        gone.stderr.contains("it runs, but its log is gone"),
        "{gone:?}"
    );
    place.run(&["leave", "orders-bob"]);
}

#[test]
fn a_plain_envoys_workload_has_no_environment_to_write() {
    let place = Place::new();
    let file = place.path().join("orders.env");
    let file_text = file.to_string_lossy().into_owned();
    let arguments = ["intercept", "orders", "--port=1", "--env-file", &file_text];
    let ran = place.start("bob", &arguments).end();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("error: --env-file: "), "{ran:?}");
    assert!(place.intercepts().is_empty() && !file.exists());
}

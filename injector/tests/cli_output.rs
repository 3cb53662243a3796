//! What the commands that only look, or only take away, print.

mod support;

use std::io::Write;
use std::process::Stdio;

use support::{Place, Running, now, ran};

/// Without what differs from run to run.
fn stable(text: &str) -> String {
    let number = |text: &str, key: &str| {
        let lines = text.lines().map(|line| match line.split_once(key) {
            Some((start, rest)) => format!(
                "{start}{key}N{}",
                rest.trim_start_matches(|char: char| char.is_ascii_digit())
            ),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let keys = [
        "\"created\": ",
        "\"expires\": ",
        "\"lease_left_seconds\": ",
        "created: ",
        "expires: ",
        "lease_left_seconds: ",
    ];
    let text = keys
        .iter()
        .fold(text.to_owned(), |text, key| number(&text, key));
    // The column is as wide as what is left, which is less than an hour once a second has begun.
    text.replace("LEASE   TUNNEL", "LEASE  TUNNEL")
        .replace("59 min  ", "1 h    ")
        .replace("59 min", "LEFT")
        .replace("1 h", "LEFT")
}

#[test]
fn intercepts_are_listed_in_every_format() {
    let place = Place::new();
    place.add(
        "orders-alice",
        "alice",
        &[("Coder", "A.*"), ("X-Team", "red")],
    );
    place.add("orders-bob", "bob", &[("x-intercept-id", "bob")]);
    let mut text = String::new();
    for arguments in [
        &["list"][..],
        &["list", "-o", "name"],
        &["list", "-o", "json"],
        &["list", "-o", "yaml"],
        &["status"],
        &["status", "orders-bob"],
        &["status", "orders-bob", "-o", "json"],
    ] {
        let ran = place.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        text.push_str(&format!(
            "$ injector {}\n{}\n\n",
            arguments.join(" "),
            stable(&ran.stdout)
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_the_filter_leaves_out_is_not_shown_as_live() {
    let place = Place::new();
    place.add("too-long", "bob", &[("Coder", "Bob")]);
    place.add("forbidden", "bob", &[("X-Team", "red")]);
    let over = place.add("over", "bob", &[("X-Team", "blue")]);
    place
        .dir()
        .renew("over", &over.address, now() - 60)
        .expect("moved");
    place.limit(|limits| {
        limits.max_lease_seconds = 300;
        limits.header_names = Some(vec!["coder".to_owned()]);
    });
    let list = place.run(&["list"]).stdout;
    let lines: Vec<&str> = list.lines().collect();
    for (line, lease) in [(1, " left out "), (2, " over "), (3, " left out ")] {
        assert!(lines[line].contains(lease), "{list}");
    }
    let status = place.run(&["status", "too-long"]).stdout;
    let why = "  reason       expires: expected a lease of at most 5 min (limits.max_lease_seconds), found one with ";
    assert!(status.contains(why), "{status}");
    let status = place.run(&["status", "forbidden", "-o", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let why = "headers[0].name: `X-Team` is not among the header names allowed here (limits.header_names)";
    assert_eq!(status["left_out"], why);
}

#[test]
fn an_entry_without_room_is_left_out() {
    let place = Place::new();
    for number in 0..=20 {
        place.add(&format!("bob-{number:02}"), "bob", &[("Coder", "Bob")]);
    }
    place.add("carol", "carol", &[("Coder", "Carol")]);
    let list = place.run(&["list"]).stdout;
    let left_out = list.lines().filter(|line| line.contains(" left out "));
    let names = left_out.filter_map(|line| line.split(' ').next());
    assert_eq!(names.collect::<Vec<_>>(), ["bob-20"], "{list}");
    let why = "one owner has at most 20 intercepts on a workload";
    let status = place.run(&["status", "bob-20"]).stdout;
    assert!(
        status.contains(&format!("  reason       {why}")),
        "{status}"
    );
    let explained = place
        .run(&["explain", "orders", "-H", "Coder: Bob", "/"])
        .stdout;
    let line = explained.lines().find(|line| line.starts_with("  bob-20 "));
    let line = line.unwrap_or_else(|| panic!("{explained}"));
    assert!(line.contains("rejected") && line.ends_with(why), "{line}");
}

#[test]
fn an_empty_list_is_said_on_stderr() {
    let place = Place::new();
    for (arguments, stdout) in [
        (&["list"][..], ""),
        (&["list", "-o", "json"], "[]\n"),
        (&["status"], ""),
    ] {
        let ran = place.run(arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (Some(0), stdout, "nothing is intercepted\n")
        );
    }
}

#[test]
fn a_tunnel_is_shown_up_while_its_machine_is_there() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("Coder", "Alice")]);
    let session = place.start("bob", &["intercept", "orders", "--port=1"]);
    session.is_live();
    let list = place.run(&["list"]).stdout;
    let tunnels: Vec<&str> = list
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(tunnels, ["away", "up"], "{list}");
}

#[test]
fn leave_takes_away_ones_own() {
    let place = Place::new();
    place.add("one", "bob", &[("Coder", "1")]);
    place.add("two", "bob", &[("Coder", "2")]);
    place.add("three", "alice", &[("Coder", "3")]);
    let ran = place.run(&["leave", "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "one removed\n"));
    let ran = place.run(&["leave", "--all", "-o", "name"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "two\n"));
    assert_eq!(
        place.intercepts().into_keys().collect::<Vec<_>>(),
        ["three"]
    );
}

#[test]
fn leave_takes_all_or_nothing() {
    let place = Place::new();
    place.add("one", "bob", &[("Coder", "1")]);
    place.add("two", "alice", &[("Coder", "2")]);
    assert_eq!(place.run(&["leave", "one", "two"]).code, Some(1));
    assert_eq!(place.intercepts().len(), 2);
    assert_eq!(place.run(&["leave", "one", "two", "--force"]).code, Some(0));
    assert!(place.intercepts().is_empty());
}

const CONFIG: &str = r#"{"version": 1, "limits": {"allow_all": false}, "extra": 1, "intercepts": {
  "bob": {"port": 8080, "cluster": "intercept|bob", "address": "00000000000000000000000000000000", "owner": "bob", "created": 0,
          "headers": [{"name": "Coder", "value": "Bob"}], "path": {"prefix": "/api"}, "expires": EXPIRES},
  "alice": {"port": 8080, "cluster": "intercept|alice", "address": "00000000000000000000000000000000", "owner": "alice", "created": 0,
          "headers": [{"name": "Coder", "value": "B.*"}], "expires": EXPIRES},
  "carol": {"port": 9090, "cluster": "intercept|carol", "address": "00000000000000000000000000000000", "owner": "carol", "created": 0,
          "headers": [{"name": ":authority", "value": "orders"}], "expires": EXPIRES},
  "dave": {"port": 8080, "cluster": "intercept|dave", "address": "00000000000000000000000000000000", "owner": "dave", "created": 0, "expires": EXPIRES},
  "erin": {"port": 8080}}}"#;

fn explain(place: &Place, arguments: &[&str]) -> support::Ran {
    let config = CONFIG.replace("EXPIRES", &(now() + 600).to_string());
    let file = place.path().join("plugin.json");
    std::fs::write(&file, config).expect("written");
    let file = file.to_str().expect("UTF-8");
    place.run(&[&["explain", "--config", file], arguments].concat())
}

#[test]
fn explain_says_who_wins_and_why_the_others_do_not() {
    let place = Place::new();
    let mut text = String::new();
    for arguments in [
        &["-H", "coder: Bob", "/api/x?y=1"][..],
        &["-H", "coder: Bob", "-H", "Coder: x", "--port", "8080", "/"],
        &["-H", "Host: orders", "-X", "POST", "/"],
        &["-H", "Host: orders", "--port", "8080", "/"],
        &["-o", "json", "-H", "Coder: Bob", "/api"],
        &["-o", "name", "-H", "Coder: Bob", "/api"],
    ] {
        let ran = explain(&place, arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        text.push_str(&format!(
            "$ injector explain {}\n{}{}\n",
            arguments.join(" "),
            ran.stderr,
            ran.stdout
        ));
    }
    insta::assert_snapshot!(text);
}

/// Text that other users wrote into an entry never moves the cursor.
#[test]
fn control_characters_that_others_wrote_are_spelled_out() {
    let place = Place::new();
    let file = place.path().join("evil.json");
    let entry = format!(
        r#"{{"version": 1, "intercepts": {{"evil": {{"port": 8080, "cluster": "intercept|evil", "address": "{}", "owner": "e", "created": 0, "expires": {},
           "headers": [{{"name": "coder", "value": "\u001bc\u202ex\u009b+"}}]}}}}}}"#,
        "0".repeat(32),
        now() + 600
    );
    std::fs::write(&file, entry).expect("written");
    let file = file.to_str().expect("UTF-8");
    let ran = place.run(&["explain", "--config", file, "-H", "Coder: Bob", "/"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains(r"\u{1b}c\u{202e}x\u{9b}+"), "{ran:?}");
    for format in ["text", "json", "yaml", "name"] {
        let ran = place.run(&[
            "explain",
            "--config",
            file,
            "-o",
            format,
            "-H",
            "Coder: Bob",
            "/",
        ]);
        assert!(
            !ran.stdout.contains(['\u{1b}', '\u{202e}', '\u{9b}']),
            "{ran:?}"
        );
    }
}

#[test]
fn the_json_of_explain_has_exactly_these_keys() {
    let ran = explain(&Place::new(), &["-o", "json", "/"]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(keys(&answer), ["intercept", "considered"]);
    assert_eq!(answer["intercept"], serde_json::Value::Null);
    let considered = answer["considered"].as_array().expect("a list");
    assert_eq!(considered.len(), 5);
    for entry in considered {
        assert_eq!(keys(entry), ["intercept", "verdict", "reason"]);
    }
}

#[test]
fn explain_reads_standard_input() {
    let place = Place::new();
    let mut command = place.command(
        "bob",
        &[
            "explain",
            "--config",
            "-",
            "-o",
            "name",
            "-H",
            "Coder: Bob",
            "/",
        ],
    );
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let config = CONFIG.replace("EXPIRES", &(now() + 600).to_string());
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(config.as_bytes())
        .expect("read");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alice\n");
}

#[test]
fn explain_asks_the_intercepts_of_a_service() {
    let place = Place::new();
    let server = support::developer_server("here");
    let port = format!("--port={server}");
    let command = ["intercept", "orders", &port, "--http-header=Coder=A.*"];
    let running = place.start("alice", &command);
    running.is_live();
    let explain = [
        "explain",
        "orders",
        "-H",
        "Coder: Alice",
        "--port=8080",
        "/",
    ];
    let ran = place.run(&explain);
    assert!(
        ran.code == Some(0) && ran.stdout.starts_with("orders-alice takes this request.\n"),
        "{ran:?}"
    );
    let ran = place.run(&[&explain[..], &["-o", "name"]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "orders-alice\n"));
    running.signal(rustix::process::Signal::TERM);
    running.end();
}

#[test]
fn explain_says_that_a_tunnel_is_away() {
    for (place, tunnel, text) in [
        (
            Place::new(),
            "away",
            "orders-alice matches, but its tunnel is away: the cluster answers.\n",
        ),
        (
            Place::without_relay(),
            "unknown",
            "orders-alice takes this request if its tunnel is up: the relay does not answer.\n",
        ),
    ] {
        place.add("orders-alice", "alice", &[("Coder", "A.*")]);
        let explain = ["explain", "orders", "-H", "Coder: Alice", "/"];
        let ran = place.run(&explain);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.starts_with(text), "{ran:?}");
        let ran = place.run(&[&explain[..], &["-o", "json"]].concat());
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(answer["tunnel"], tunnel, "{ran:?}");
        assert_eq!(answer["intercept"], "orders-alice", "{ran:?}");
        let ran = place.run(&[&explain[..], &["-o", "name"]].concat());
        let takes_it = ran.stdout == "orders-alice\n";
        assert_eq!(takes_it, tunnel == "unknown", "{ran:?}");
    }
}

#[test]
fn help_fits_a_person_in_a_hurry() {
    let place = Place::new();
    let mut text = String::new();
    for arguments in [
        &["--help"][..],
        &["intercept", "--help"],
        &["leave", "--help"],
        &["logs", "--help"],
        &["list", "--help"],
        &["status", "--help"],
        &["explain", "--help"],
        &["relay", "--help"],
        &["completions", "--help"],
    ] {
        let ran = place.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        text.push_str(&format!(
            "$ injector {}\n{}\n",
            arguments.join(" "),
            place.stable(&ran.stdout)
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn completions_name_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]).stdout;
        for command in [
            "intercept",
            "leave",
            "logs",
            "list",
            "status",
            "explain",
            "relay",
            "sandbox",
        ] {
            assert!(script.contains(command), "{shell} {command}");
        }
    }
}

#[test]
fn the_relay_says_where_it_listens_and_ends_on_sigterm() {
    let place = Place::new();
    let arguments = [
        "relay",
        "--listen=127.0.0.1:0",
        "--listen=127.0.0.1:0",
        "--control=127.0.0.1:0",
    ];
    let relay = Running::new(&mut place.command("bob", &arguments));
    relay.says("control on 127.0.0.1:");
    assert_eq!(relay.stderr().matches("data on 127.0.0.1:").count(), 2);
    relay.signal(rustix::process::Signal::TERM);
    assert_eq!(relay.end().code, Some(0));
}

#[test]
fn the_version_names_the_program() {
    let place = Place::new();
    let version = ran(&mut place.command("bob", &["--version"]));
    assert!(
        version
            .stdout
            .starts_with(concat!("injector ", env!("CARGO_PKG_VERSION"), " (")),
        "{version:?}"
    );
}

//! Everything that can be typed wrong: what the command says, how it exits, and that nothing is created.

mod support;

use intercept_manifest::facts::Port;
use support::{Place, Ran, now, ran};

/// What was typed, what was said, and how it ended.
fn told(place: &Place, arguments: &[&str], ran: &Ran) -> String {
    let typed: Vec<String> = arguments
        .iter()
        .map(|word| injector::shell::quote(word))
        .collect();
    let code = ran.code.expect("an exit code");
    place.stable(&format!(
        "$ injector {}\n{}exit {code}\n\n",
        typed.join(" "),
        ran.stderr
    ))
}

/// Runs every line; each must fail with `error:` and `hint:`, print nothing on stdout and change nothing.
#[track_caller]
fn all_fail(place: &Place, lines: &[&[&str]]) -> String {
    let before = place.intercepts();
    let mut text = String::new();
    for arguments in lines {
        let ran = place.run(arguments);
        assert!(matches!(ran.code, Some(1 | 2)), "{arguments:?}: {ran:?}");
        assert!(
            ran.stderr.starts_with("error: ") && ran.stderr.contains("\n\nhint: "),
            "{arguments:?}: {ran:?}"
        );
        assert_eq!(ran.stdout, "", "{arguments:?}");
        assert_eq!(place.intercepts(), before, "{arguments:?}");
        assert!(!place.remembers(), "{arguments:?}");
        text.push_str(&told(place, arguments, &ran));
    }
    text
}

#[test]
fn ports_of_envoy_and_relay_are_refused() {
    let place = Place::new();
    let (control, data) = (place.control.port(), place.data.port());
    for (flag, who) in [
        (None, "Envoy itself"),
        (Some("8080".to_owned()), "Envoy itself"),
        (Some("8080:http".to_owned()), "Envoy itself"),
        (Some(":http".to_owned()), "Envoy itself"),
        (Some(control.to_string()), "the relay"),
        (Some(data.to_string()), "the relay"),
    ] {
        let flag = flag.map(|port| format!("--port={port}"));
        let line = ["intercept", "orders"].into_iter().chain(flag.as_deref());
        let ran = place.run(&line.collect::<Vec<_>>());
        assert_eq!(ran.code, Some(2), "{flag:?}: {ran:?}");
        assert!(
            ran.stderr.contains(&format!("{who} listens there"))
                && ran.stderr.contains("--port 3000"),
            "{flag:?}: {ran:?}"
        );
    }
    assert!(place.intercepts().is_empty() && !place.remembers());
}

#[test]
fn a_missing_command_is_told_as_by_a_shell() {
    let place = Place::new();
    let plain = place.path().join("plain");
    std::fs::write(&plain, "").expect("written");
    let plain = plain.to_string_lossy();
    for (command, code, why) in [
        ("nosuchcmd", 127, "-- nosuchcmd: command not found"),
        ("./nosuchcmd", 127, "-- ./nosuchcmd: command not found"),
        (&*plain, 126, "permission denied"),
    ] {
        let ran = place.run(&["intercept", "orders", "--port=1", "--", command]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
        assert!(!ran.stderr.contains("live"), "{ran:?}");
    }
    assert!(place.intercepts().is_empty() && !place.remembers());
}

#[test]
fn wrong_conditions_are_refused_in_words() {
    let place = Place::new();
    let flags: &[&[&str]] = &[
        &["--http-header=Coder"],
        &["--http-header=Coder: Bob"],
        &["--http-header=Coder:"],
        &["--http-header=:authority"],
        &["--http-header="],
        &["--http-header==Bob"],
        &["--http-header=Co der=Bob"],
        &["--http-header=Coder=["],
        &["--http-header=Coder=a)|(?:b"],
        &["--http-header=Coder=(?=Bob)"],
        &["--http-header=Coder=(?x)a b"],
        &["--http-header=Coder=(.{0,100}){100}"],
        &["--http-header=Coder="],
        &["--http-header", "Coder= Bob"],
        &["--http-header=Coder=Bob", "--http-header=coder=Ann"],
        &["--http-header=:authority=orders-shadow"],
        &["--http-header=auto", "--http-header=auto"],
        &["--http-header=all", "--http-header=all"],
        &["--http-header=all", "--http-header=auto"],
        &["--http-header=all", "--http-header=Coder=Bob"],
        &["--http-header=all", "--baggage=dev=bob"],
        &["--baggage=dev"],
        &["--baggage=dev="],
        &["--baggage=d ev=bob"],
        &["--baggage=dev=("],
        &["--http-path-equal=/a", "--http-path-equal=/b"],
        &["--http-path-equal=/a", "--http-path-prefix=/b"],
        &["--http-path-prefix=/a", "--http-path-regex=/b"],
        &["--http-path-equal=api"],
        &["--http-path-equal=/api?x=1"],
        &["--http-path-prefix="],
        &["--http-path-regex=/api/("],
        &["--http-path-regex=/api\\?x=.*"],
    ];
    let lines: Vec<Vec<&str>> = flags
        .iter()
        .map(|flags| [&["intercept", "orders"], *flags].concat())
        .collect();
    let lines: Vec<&[&str]> = lines.iter().map(Vec::as_slice).collect();
    let text = all_fail(&place, &lines);
    insta::assert_snapshot!(text);
}

#[test]
fn wrong_targets_ports_names_and_leases_are_refused_in_words() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("Coder", "B.*")]);
    let text = all_fail(
        &place,
        &[
            &["intercept"],
            &["intercept", "carts"],
            &["intercept", "orders", "--port=0"],
            &["intercept", "orders", "--port=70000"],
            &["intercept", "orders", "--port=http"],
            &["intercept", "orders", "--port=3000:"],
            &["intercept", "orders", "--port=3000:grpc"],
            &["intercept", "orders", "--port="],
            &["intercept", "orders", "--name=Orders_Bob"],
            &["intercept", "orders", "--name="],
            &[
                "intercept",
                "orders",
                "--port=1",
                "--name=orders-alice",
                "--replace",
            ],
            &["intercept", "orders", "--lease=1"],
            &["intercept", "orders", "--lease=4min"],
            &["intercept", "orders", "--lease=25h"],
            &["intercept", "orders", "--lease=-1h"],
            &["intercept", "orders", "--port=1", "--http-header=Coder=Bob"],
            &["intercept", "orders", "npm", "start"],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn other_commands_refuse_in_words() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("Coder", "Alice")]);
    let config = place.path().join("none.json");
    let config = config.to_str().expect("UTF-8");
    let broken = place.path().join("broken.json");
    std::fs::write(&broken, r#"{"version": 1, "#).expect("written");
    let broken = broken.to_str().expect("UTF-8");
    let text = all_fail(
        &place,
        &[
            &[],
            &["intercpt"],
            &["list", "--outpt=json"],
            &["list", "-o", "xml"],
            &["list", "-q", "-v"],
            &["leave"],
            &["leave", "--all", "orders-alice"],
            &["leave", "orders-bob"],
            &["leave", "orders-alice"],
            &["status", "orders-bob"],
            &["explain"],
            &["explain", "/api"],
            &["explain", "carts", "/api"],
            &["explain", "orders", "api"],
            &["explain", "orders", "-H", "Coder", "/api"],
            &["explain", "orders", "--port=http", "/api"],
            &["explain", "--config", config, "/api"],
            &["explain", "--config", config, "orders", "/api"],
            &["explain", "--config", broken, "/api"],
            &["explain", "orders", "--port=9", "/api"],
            &["relay", "--listen=8080"],
            &["relay", "--listen=192.0.2.1:0"],
            &["completions", "sh"],
            &["--envoy", "/nowhere", "list"],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn a_directory_that_is_not_exported_is_said_again_in_what_is_shown() {
    let place = Place::new();
    place.add("orders-alice", "alice", &[("Coder", "Alice")]);
    let envoy = place.envoy().display().to_string();
    for (words, expected) in [
        (
            &["leave", "orders-alice"][..],
            "ask them, or: injector leave --envoy DIR --force orders-alice",
        ),
        (&["status", "orders-bob"], "injector list --envoy DIR"),
        (
            &["intercept", "orders", "--port=1", "--name=orders-alice"],
            "injector intercept --envoy DIR orders --name=ANOTHER-NAME",
        ),
        (
            &["intercept", "orders", "--port=3000:admin"],
            "injector intercept --envoy DIR orders --port 3000:http",
        ),
        (
            &["intercept", "carts"],
            "its name is orders, as in: injector intercept --envoy DIR orders",
        ),
        (
            &["uninstall"],
            "injector --envoy DIR leave --force orders-alice, or: injector --envoy DIR uninstall --force",
        ),
    ] {
        let words = [words, &["--envoy", &envoy]].concat();
        let ran = ran(place.command("bob", &words).env_remove("INJECTOR_ENVOY"));
        let hint = ran.stderr.split_once("hint: ").expect("a hint").1;
        assert_eq!(hint.trim_end().replace(&envoy, "DIR"), expected);
    }
}

#[test]
fn what_the_operator_forbids_is_refused_in_words() {
    let place = Place::with(|workload| {
        workload.limits.allow_all = false;
        workload.limits.max_lease_seconds = 1_800;
        workload.limits.header_names = Some(vec!["x-intercept-id".to_owned()]);
    });
    let text = all_fail(
        &place,
        &[
            &[
                "intercept",
                "orders",
                "--port=1",
                "--lease=30min",
                "--http-header=all",
            ],
            &[
                "intercept",
                "orders",
                "--port=1",
                "--lease=30min",
                "--http-header=Coder=Bob",
            ],
            &[
                "intercept",
                "orders",
                "--port=1",
                "--lease=30min",
                "--baggage=dev=bob",
            ],
            &[
                "intercept",
                "orders",
                "--port=1",
                "--lease=31min",
                "--http-header=x-intercept-id=bob",
            ],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn several_ports_are_listed() {
    let place = Place::with(|workload| {
        let mut other = workload.ports[0].clone();
        (other.name, other.number) = ("grpc".to_owned(), 9090);
        workload.ports.push(Port { url: None, ..other });
    });
    let text = all_fail(
        &place,
        &[
            &["intercept", "orders"],
            &["intercept", "orders", "--port=3000"],
            &["intercept", "orders", "--port=3000:web"],
        ],
    );
    insta::assert_snapshot!(text);
    for (flag, port) in [
        ("3000:http", 8080),
        ("3000:9090", 9090),
        ("3000:grpc", 9090),
    ] {
        let ran = place.run(&[
            "intercept",
            "orders",
            "--port",
            flag,
            "--dry-run",
            "-o",
            "json",
        ]);
        let written: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(written["intercepts"]["orders-bob"]["port"], port, "{flag}");
    }
}

#[test]
fn without_a_directory_or_a_cluster_the_command_says_how_to_get_one() {
    let place = Place::new();
    let mut text = String::new();
    for arguments in [
        &["intercept", "orders"][..],
        &["list"],
        &["leave", "x"],
        &["explain", "orders", "/"],
    ] {
        let mut command = place.command("bob", arguments);
        let ran = ran(command
            .env_remove("INJECTOR_ENVOY")
            .env_remove("KUBECONFIG"));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        text.push_str(&told(&place, arguments, &ran));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_lease_that_is_over_stands_in_nobodys_way() {
    let place = Place::new();
    let other = place.add("orders-alice", "alice", &[("Coder", "B.*")]);
    place
        .dir()
        .renew("orders-alice", &other.address, now() - 1)
        .expect("moved");
    let ran = place.run(&[
        "intercept",
        "orders",
        "--port=1",
        "--http-header=Coder=Bob",
        "--",
        "true",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn an_empty_variable_counts_as_none() {
    let place = Place::new();
    let unset = ran(place.command("bob", &["list"]).env_remove("INJECTOR_ENVOY"));
    let empty = ran(place.command("bob", &["list"]).env("INJECTOR_ENVOY", ""));
    assert_eq!(empty.code, unset.code);
    assert_eq!(empty.stderr, unset.stderr);
}

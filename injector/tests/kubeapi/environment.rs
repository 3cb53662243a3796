//! The environment of a workload on the developer's machine, read with the developer's own rights, and intercepts of a mesh that go on in the background: against a real API
//! server.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::rbac;
use super::stage::{INTERCEPT, Stage};
use super::support::{EndedOnFailure, Ran, ran, wait_until};
use rustix::process::Pid;
use serde_json::{Value, json};

/// A workload with every kind of source, and what it refers to.
fn stage(namespace: &str) -> Stage {
    let reference = |kind: &str, name: &str, key: &str| json!({kind: {"name": name, "key": key}});
    let app = json!({
        "resources": {"limits": {"memory": "64Mi"}},
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"prefix": "DB_", "secretRef": {"name": "db"}},
            {"configMapRef": {"name": "none", "optional": true}},
        ],
        "env": [
            {"name": "LEVEL", "value": "debug"},
            {"name": "POOL", "valueFrom": reference("configMapKeyRef", "settings", "pool")},
            {"name": "TOKEN", "valueFrom": reference("secretKeyRef", "db", "PASSWORD")},
            {"name": "URL", "value": "db://$(DB_PASSWORD)@db/$(LEVEL)"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "PATH", "value": "/app/bin"},
            {"name": "NODE_OPTIONS", "value": "--require /tmp/x.js"},
        ],
    });
    let stage = Stage::with_app(namespace, app);
    let metadata = |name: &str| json!({"name": name, "namespace": namespace});
    stage.server.apply_all(&[
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("settings"),
            "data": {"LEVEL": "info", "pool": "5", "CERT": "two\nlines"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("db"),
            "data": {"PASSWORD": "czNjcmV0"}}),
    ]);
    stage
}

/// bob may read these.
fn allow(stage: &Stage, role: &str, resources: &[&str]) {
    let rules = json!([{"apiGroups": [""], "resources": resources, "verbs": ["get"]}]);
    let namespace = &stage.namespace;
    stage.server.apply_all(&[
        rbac::role(namespace, role, rules),
        rbac::binding(namespace, "bob", "Role", role),
    ]);
}

fn file(stage: &Stage) -> PathBuf {
    stage.home().join("orders.env")
}

fn nothing_is_left(stage: &Stage, ran: &Ran) {
    assert_eq!(stage.entry("orders-bob"), None, "{ran:?}");
    assert_eq!(stage.intercepts(), [""; 0], "{ran:?}");
    assert!(!file(stage).exists(), "{ran:?}");
}

#[test]
fn the_containers_environment_is_in_the_file_and_in_the_command() {
    let stage = stage("environment");
    allow(&stage, "everything", &["configmaps", "secrets"]);
    let path = file(&stage);
    let path_text = path.to_string_lossy().into_owned();
    let script = "env; echo done";
    let ran = stage.run(
        "bob",
        &[
            INTERCEPT,
            &["-v", "--env-file", &path_text, "--", "sh", "-c", script],
        ]
        .concat(),
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
    let has = |line: &str| ran.stdout.lines().any(|found| found == line);
    let expected = [
        "DB_PASSWORD=s3cret",
        "LEVEL=debug",
        "MEMORY=64",
        "PATH=/app/bin",
        "POD=environment",
        "POOL=5",
        "TOKEN=s3cret",
        "URL=db://s3cret@db/debug",
        "pool=5",
    ];
    let written = std::fs::read_to_string(&path).expect("written");
    let (links, others): (Vec<&str>, Vec<&str>) = written
        .lines()
        .partition(|line| line.starts_with("ORDERS_"));
    assert_eq!(others, expected);
    let names = links.iter().filter_map(|line| line.split('=').next());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "ORDERS_SERVICE_HOST",
            "ORDERS_SERVICE_PORT",
            "ORDERS_SERVICE_PORT_HTTP"
        ],
        "the Service that was there before the pods"
    );
    assert!(has("ORDERS_SERVICE_PORT_HTTP=80"), "{ran:?}");
    let mode = std::fs::metadata(&path).expect("there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert!(
        ran.stderr.contains("note: CERT is left out of the file"),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains("on this machine: NODE_OPTIONS (--env-all"),
        "{ran:?}"
    );
    assert!(!ran.stdout.contains("NODE_OPTIONS"), "{ran:?}");
    for line in expected {
        assert_eq!(has(line), line != "PATH=/app/bin", "{line}: {ran:?}");
    }
    assert!(has("CERT=two") && has("INJECTOR_INTERCEPT=orders-bob"));
}

#[test]
fn whoever_may_not_read_it_is_told_of_every_right_before_anything_is_made() {
    let stage = stage("no-rights");
    let path = file(&stage).to_string_lossy().into_owned();
    // The developer's role alone reads neither.
    let refused = stage.run("bob", &[INTERCEPT, &["--env-file", &path]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in [
        "you may not get configmaps none in no-rights, nor get configmaps settings in no-rights, nor get secrets db in no-rights",
        "--no-env",
        "kubectl -n no-rights create role intercept-environment --verb=get --resource=configmaps,secrets --resource-name=none --resource-name=settings --resource-name=db",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    nothing_is_left(&stage, &refused);

    allow(&stage, "settings", &["configmaps"]);
    let command = ["--", "sh", "-c", "env; echo ran"];
    let refused = stage.run("bob", &[INTERCEPT, &command].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("environment: you may not get secrets db in no-rights\n"),
        "{refused:?}"
    );
    assert_eq!(refused.stdout, "", "the command did not run");
    nothing_is_left(&stage, &refused);

    let without = stage.run("bob", &[INTERCEPT, &["--no-env"], &command].concat());
    assert_eq!(without.code, Some(0), "{without:?}");
    assert!(
        without.stdout.contains("ran") && !without.stdout.contains("LEVEL="),
        "{without:?}"
    );
    let plain = stage.run("bob", &[INTERCEPT, &["--dry-run"]].concat());
    assert_eq!(plain.code, Some(0), "nothing is read unasked: {plain:?}");
}

#[test]
fn what_is_not_there_is_left_out_with_a_note() {
    let stage = stage("gone");
    allow(&stage, "everything", &["configmaps", "secrets"]);
    stage
        .server
        .must(&["-n", "gone", "delete", "secret", "db"], None);
    let command = ["--", "env"];
    let ran = stage.run("bob", &[INTERCEPT, &command].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for note in [
        "note: the variables of the secret db are left out",
        "note: TOKEN is left out: there is no secret db",
        "note: URL: $(DB_PASSWORD) is not known here",
    ] {
        assert!(ran.stderr.contains(note), "{note}: {ran:?}");
    }
    assert!(
        ran.stdout.contains("URL=db://$(DB_PASSWORD)@db/debug\n"),
        "{ran:?}"
    );
}

#[test]
fn leave_ends_a_process_of_this_machine_also_where_no_cluster_answers() {
    let stage = stage("away");
    let ran = stage.run("bob", &[INTERCEPT, &["--detach"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let shown = stage.run("bob", &["list", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let _guard = EndedOnFailure(pid(&shown));
    let known = std::fs::read_to_string(stage.server.kubeconfig("bob", "away")).expect("there");
    let kubeconfig = |name: &str, text: String| {
        let file = stage.home().join(name);
        std::fs::write(&file, text).expect("written");
        file.to_string_lossy().into_owned()
    };
    // A kubeconfig that verifies the API server's certificate, which no authority has signed.
    let doubted = known.replace("insecure-skip-tls-verify: true", "tls-server-name: x");
    assert_ne!(doubted, known);
    // Another API server, whose context has the same name: what runs is not its.
    let other = doubted.replace("https://127.0.0.1:", "https://localhost:");
    assert_ne!(other, doubted);
    let other = kubeconfig("other", other);
    let left = stage.run("bob", &["leave", "--kubeconfig", &other, "--all"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(!left.stderr.contains("ended on this machine"), "{left:?}");
    assert!(stage.entry("orders-bob").is_some());
    let gone = kubeconfig("gone", doubted);
    let left = stage.run("bob", &["leave", "--kubeconfig", &gone, "orders-bob"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(
        left.stderr.contains("ended on this machine: orders-bob"),
        "{left:?}"
    );
    assert_eq!(stage.entry("orders-bob"), None);
}

#[test]
fn kubeconfig_by_descriptor_works_in_background() {
    let stage = Stage::new("descriptor");
    let given = stage.home().join("given");
    std::fs::copy(stage.kubeconfig("bob"), &given).expect("copied");
    let told = stage.command("bob", &[INTERCEPT, &["--detach"]].concat());
    let mut shell = Command::new("sh");
    shell.args(["-c", r#""$@" --kubeconfig /dev/fd/9 9<"$GIVEN""#, "sh"]);
    shell.arg(told.get_program()).args(told.get_args());
    let variables = told
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    shell.env_clear().envs(variables).env("GIVEN", &given);
    let ran = ran(&mut shell);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let listed = stage.run("bob", &["list", "-o", "json"]);
    let pid = pid(&serde_json::from_str(&listed.stdout).expect("JSON"));
    let _guard = EndedOnFailure(pid);
    let left = stage.run("bob", &["leave", "orders-bob"]);
    assert_eq!(left.stdout, "orders-bob removed\n", "{left:?}");
}

/// The process of the first one that is listed.
#[track_caller]
fn pid(listed: &Value) -> Pid {
    let pid = listed[0]["detached"]["pid"].as_i64();
    let pid = pid.unwrap_or_else(|| panic!("{listed}"));
    Pid::from_raw(i32::try_from(pid).expect("small")).expect("a process")
}

#[test]
fn an_intercept_goes_on_in_the_background_until_it_is_left() {
    let stage = stage("background");
    allow(&stage, "everything", &["configmaps", "secrets"]);
    let path = file(&stage).to_string_lossy().into_owned();
    let detach = [
        INTERCEPT,
        &["-n", "background", "--detach", "--env-file", &path],
    ]
    .concat();
    let ran = stage.run("bob", &detach);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("orders-bob live")
            && ran
                .stderr
                .contains("injector leave -n background orders-bob"),
        "{ran:?}"
    );
    assert!(file(&stage).exists());
    assert!(stage.entry("orders-bob").is_some());
    let shown = stage.run("bob", &["list", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(shown[0]["tunnel"], "up", "{shown}");
    let _guard = EndedOnFailure(pid(&shown));

    let elsewhere = stage.run("bob", &["logs", "-n", "default", "orders-bob"]);
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    let following = stage.start("bob", &["logs", "orders-bob", "-f"]);
    wait_until(
        || {
            following
                .stdout()
                .contains("intercepts port 8080 of orders")
        },
        || following.stderr(),
    );
    let left = stage.run("bob", &["leave", "orders-bob"]);
    assert_eq!(left.stdout, "orders-bob removed\n", "{left:?}");
    assert_eq!(stage.entry("orders-bob"), None);
    assert_eq!(stage.intercepts(), [""; 0]);
    let followed = following.end();
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(
        followed.stdout.contains("orders-bob removed") && !followed.stdout.contains("s3cret"),
        "{followed:?}"
    );
}

//! Compares with what the kubelet makes of the same container (`makeEnvironmentVariables`).

use serde_json::json;

use super::*;

fn container(env_from: Value, env: Value) -> Container {
    let resources =
        json!({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}});
    let container = json!({"name": "app", "envFrom": env_from, "env": env, "resources": resources});
    serde_json::from_value(container).expect("a container")
}

fn objects() -> Objects {
    let config = json!({"data": {"LEVEL": "info", "HOST": "config", "pool.size": "5"}});
    // Mg==: 2; /w==: the byte 255.
    let secret = json!({"data": {"PASSWORD": "czNjcmV0", "HOST": "c2VjcmV0", "BYTES": "/w=="}});
    Objects::from([
        (Reference::ConfigMap("settings".to_owned()), config),
        (Reference::Secret("db".to_owned()), secret),
    ])
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "orders-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "orders"}, "annotations": {"a.b/c": "note"}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "orders", "containers": [
            {"name": "app"}, {"name": "cache", "resources": {"limits": {"memory": "1Gi"}}},
        ]},
        "status": {"podIP": "10.0.0.1", "hostIP": "10.1.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    })
}

fn made(env_from: Value, env: Value) -> Environment {
    resolve(
        &container(env_from, env),
        Some(&pod()),
        &objects(),
        &Links::new(),
    )
}

fn value<'e>(environment: &'e Environment, name: &str) -> Option<&'e str> {
    environment.variables.get(name).map(String::as_str)
}

#[test]
fn later_sources_win_and_env_wins_over_all_sources() {
    let config_then_secret = json!([
        {"configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "db"}},
    ]);
    let made_of = |env| made(config_then_secret.clone(), env);
    assert_eq!(value(&made_of(json!([])), "HOST"), Some("secret"));
    let own = made_of(json!([{"name": "HOST", "value": "own"}, {"name": "HOST", "value": "last"}]));
    assert_eq!(value(&own, "HOST"), Some("last"));
    assert_eq!(value(&own, "LEVEL"), Some("info"));
    assert_eq!(value(&own, "PASSWORD"), Some("s3cret"));
}

#[test]
fn a_prefix_stands_before_every_key_of_its_source() {
    let made = made(
        json!([{"prefix": "DB_", "secretRef": {"name": "db"}}, {"prefix": "X_", "configMapRef": {"name": "settings"}}]),
        json!([]),
    );
    assert_eq!(value(&made, "DB_PASSWORD"), Some("s3cret"));
    assert_eq!(value(&made, "X_pool.size"), Some("5"));
    assert_eq!(value(&made, "PASSWORD"), None);
}

#[test]
fn a_reference_sees_only_what_stands_before_it() {
    let made = made(
        json!([{"secretRef": {"name": "db"}}]),
        json!([
            {"name": "EARLY", "value": "$(LATE)"},
            {"name": "LATE", "value": "x"},
            {"name": "URL", "value": "db://$(HOST):$(PASSWORD)@$(LATE)$$(LATE)"},
            {"name": "RAW", "valueFrom": {"secretKeyRef": {"name": "db", "key": "HOST"}}},
        ]),
    );
    assert_eq!(value(&made, "EARLY"), Some("$(LATE)"));
    assert_eq!(value(&made, "URL"), Some("db://secret:s3cret@x$(LATE)"));
    assert_eq!(value(&made, "RAW"), Some("secret"));
    assert!(
        made.notes
            .iter()
            .any(|note| note.starts_with("EARLY: $(LATE)")),
        "{made:?}"
    );
}

#[test]
fn variables_of_services_stand_below_all_others() {
    let links = Links::from([
        ("DB_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
        ("DB_SERVICE_PORT".to_owned(), "5432".to_owned()),
    ]);
    let env = json!([
        {"name": "URL", "value": "$(DB_SERVICE_HOST):$(DB_SERVICE_PORT)"},
        {"name": "DB_SERVICE_HOST", "value": "own"},
        {"name": "LATER", "value": "$(DB_SERVICE_HOST)"},
    ]);
    let made = resolve(&container(json!([]), env), None, &objects(), &links);
    let expected = [
        ("DB_SERVICE_HOST", "own"),
        ("DB_SERVICE_PORT", "5432"),
        ("LATER", "own"),
        ("URL", "10.0.0.1:5432"),
    ];
    assert!(made.variables().eq(expected), "{made:?}");
    assert_eq!(made.notes, [""; 0]);
}

#[test]
fn what_is_referred_to_is_not_expanded() {
    let mut objects = objects();
    objects.insert(
        Reference::ConfigMap("settings".to_owned()),
        json!({"data": {"TEMPLATE": "$(LEVEL)"}}),
    );
    let env = json!([
        {"name": "LEVEL", "value": "info"},
        {"name": "T", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "TEMPLATE"}}},
    ]);
    let made = resolve(&container(json!([]), env), None, &objects, &Links::new());
    assert_eq!(value(&made, "T"), Some("$(LEVEL)"));
}

#[test]
fn what_is_optional_may_be_missing_without_a_word() {
    let made = made(
        json!([{"configMapRef": {"name": "none", "optional": true}}, {"secretRef": {"name": "none", "optional": true}}]),
        json!([
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": true}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x", "optional": true}}},
        ]),
    );
    assert_eq!((made.variables.len(), made.notes.len()), (0, 0), "{made:?}");
}

#[test]
fn what_is_missing_is_left_out_with_a_note() {
    let made = made(
        json!([{"configMapRef": {"name": "none"}}]),
        json!([
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "x"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x"}}},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "db", "key": "BYTES"}}},
            {"name": "D", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}},
        ]),
    );
    assert_eq!(
        made.notes,
        [
            "the variables of the config map none are left out: there is none of this name",
            "A is left out: the secret db has no key x",
            "B is left out: there is no config map none",
            "C is left out: the value of BYTES in the secret db is not text (UTF-8)",
            "D is left out: its source is of a kind that only the node can read",
        ]
    );
    assert!(made.variables.is_empty());
}

#[test]
fn an_empty_value_is_a_variable() {
    let made = made(
        json!([]),
        json!([{"name": "A"}, {"name": "B", "value": ""}]),
    );
    assert_eq!((value(&made, "A"), value(&made, "B")), (Some(""), Some("")));
}

#[test]
fn fields_are_those_of_the_pod() {
    let cases = [
        ("metadata.name", Some("orders-1")),
        ("metadata.namespace", Some("shop")),
        ("metadata.uid", Some("u-1")),
        ("metadata.labels['app']", Some("orders")),
        ("metadata.labels['none']", Some("")),
        ("metadata.annotations['a.b/c']", Some("note")),
        ("spec.nodeName", Some("node-1")),
        ("spec.serviceAccountName", Some("orders")),
        ("status.podIP", Some("10.0.0.1")),
        ("status.hostIP", Some("10.1.0.1")),
        ("status.podIPs", Some("10.0.0.1,fd00::1")),
        ("status.hostIPs", None),
        ("spec.containers", None),
    ];
    for (path, expected) in cases {
        let env = json!([{"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        let with_pod = made(json!([]), env.clone());
        assert_eq!(value(&with_pod, "F"), expected, "{path}");
        assert_eq!(
            with_pod.notes.len(),
            usize::from(expected.is_none()),
            "{path}"
        );
        let without = resolve(&container(json!([]), env), None, &objects(), &Links::new());
        assert_eq!(value(&without, "F"), None);
    }
}

#[test]
fn resources_are_divided_and_rounded_up() {
    let cases = [
        (json!({"resource": "limits.cpu"}), Some("2")),
        (
            json!({"resource": "limits.cpu", "divisor": "1m"}),
            Some("1500"),
        ),
        (json!({"resource": "limits.cpu", "divisor": "0"}), Some("2")),
        (json!({"resource": "requests.cpu"}), Some("1")),
        (json!({"resource": "requests.memory"}), Some("0")),
        (
            json!({"resource": "limits.memory", "divisor": "1Mi"}),
            Some("64"),
        ),
        (json!({"resource": "limits.memory"}), Some("67108864")),
        (
            json!({"resource": "limits.memory", "containerName": "cache", "divisor": "1Gi"}),
            Some("1"),
        ),
        (json!({"resource": "limits.ephemeral-storage"}), None),
        (
            json!({"resource": "limits.cpu", "containerName": "none"}),
            None,
        ),
    ];
    for (field, expected) in cases {
        let env = json!([{"name": "R", "valueFrom": {"resourceFieldRef": field}}]);
        let made = made(json!([]), env);
        assert_eq!(value(&made, "R"), expected, "{field}");
    }
}

#[test]
fn every_object_is_referred_to_once() {
    let container = container(
        json!([{"secretRef": {"name": "db"}}, {"configMapRef": {"name": "settings"}}]),
        json!([
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "x"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "more", "key": "x"}}},
        ]),
    );
    let expected = [
        Reference::ConfigMap("more".to_owned()),
        Reference::ConfigMap("settings".to_owned()),
        Reference::Secret("db".to_owned()),
    ];
    assert_eq!(references(&container), expected);
}

#[test]
fn a_program_of_the_developer_keeps_what_is_about_the_developers_machine() {
    let made = made(
        json!([]),
        json!([
            {"name": "PATH", "value": "/app/bin"},
            {"name": "HOME", "value": "/app"},
            {"name": "LD_PRELOAD", "value": "x.so"},
            {"name": "XDG_STATE_HOME", "value": "/x"},
            {"name": "LEVEL", "value": "info"},
        ]),
    );
    let names: Vec<&str> = made.for_child().map(|(name, _)| name).collect();
    assert_eq!(names, ["LEVEL"]);
    assert_eq!(made.variables().count(), 5);
}

#[test]
fn what_could_run_code_is_left_out_and_named() {
    let mut made = made(
        json!([]),
        json!([
            {"name": "NODE_OPTIONS", "value": "--require /tmp/evil.js"},
            {"name": "npm_config_script_shell", "value": "/tmp/evil"},
            {"name": "LD_PRELOAD", "value": "/tmp/evil.so"},
            {"name": "LEVEL", "value": "info"},
        ]),
    );
    made.leave_out_code();
    let names: Vec<&str> = made.variables().map(|(name, _)| name).collect();
    assert_eq!(names, ["LEVEL"]);
    let [note] = made.notes() else {
        panic!("{:?}", made.notes());
    };
    assert!(
        note.contains("LD_PRELOAD, NODE_OPTIONS, npm_config_script_shell")
            && note.contains("--env-all")
            && !note.contains("evil"),
        "{note}"
    );
}

#[test]
fn no_value_is_ever_shown() {
    let made = made(
        json!([{"secretRef": {"name": "db"}}]),
        json!([{"name": "A", "value": "$(PASSWORD)\u{0}"}]),
    );
    let shown = format!("{made:?} {:?}", made.notes());
    assert!(
        shown.contains("PASSWORD") && !shown.contains("s3cret"),
        "{shown}"
    );
}

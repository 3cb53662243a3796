//! Developers who lack rights, and operators who intercept.

use injector::cluster::Apply;
use injector::manifest::istio::{field_manager, names};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::rbac;
use super::stage::{PREPARED, Stage, entry};
use super::support::wait_until;

/// eve may do this, and open tunnels.
fn allow(stage: &Stage, rules: Value) {
    let namespace = &stage.namespace;
    stage.server.apply_all(&[
        rbac::role(namespace, "less", rules),
        rbac::binding(namespace, "eve", "Role", "less"),
    ]);
    stage.bind_tunnel("eve");
}

#[test]
fn a_developer_who_may_not_write_envoy_filters_shares_a_relays_cluster() {
    let stage = Stage::new("shared");
    let rules = json!([
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": ["networking.istio.io"], "resources": ["envoyfilters"], "verbs": ["get"]},
    ]);
    allow(&stage, rules);
    let eve = stage.start(
        "eve",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Eve"],
    );
    eve.is_live();
    assert!(
        eve.stderr()
            .contains("applied, not verified (you may not forward ports"),
        "{}",
        eve.stderr()
    );
    let cluster = stage.entry("orders-eve").expect("written")["cluster"].clone();
    assert!(
        ["intercept|relay-0|8080", "intercept|relay-1|8080"]
            .map(|name| json!(name))
            .contains(&cluster),
        "{cluster}"
    );
    assert_eq!(stage.clusters(), [""; 0]);
    eve.signal(Signal::INT);
    assert_eq!(eve.end().code, Some(0));
    assert_eq!(stage.entry("orders-eve"), None);
}

#[test]
fn the_doctor_asks_for_the_rights_that_an_intercept_takes() {
    let stage = Stage::new("named");
    let mut rules = json!([
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "resourceNames": [PREPARED], "verbs": ["patch"]},
        {"apiGroups": ["networking.istio.io"], "resources": ["envoyfilters"], "verbs": ["get", "create"]},
    ]);
    let lacking = || {
        let told = stage.run("eve", &["doctor", "orders", "-o", "json"]);
        let told: Vec<Value> = serde_json::from_str(&told.stdout).expect("JSON");
        let rights = told.iter().filter_map(|check| {
            let id = check["id"].as_str()?.strip_prefix("right-")?;
            let is_good = check["outcome"] == "good" || id.ends_with("events");
            (!is_good).then(|| format!("{} {id}", check["outcome"]).replace('"', ""))
        });
        rights.collect::<Vec<_>>()
    };
    let shares = ["perhaps patch-envoyfilters", "perhaps delete-envoyfilters"];
    allow(&stage, rules.clone());
    assert_eq!(lacking(), shares);
    let eve = stage.start(
        "eve",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Eve"],
    );
    eve.is_live();
    eve.signal(Signal::INT);
    assert_eq!(eve.end().code, Some(0));
    rules[3]["resourceNames"] = json!(["injector-deployment-other"]);
    allow(&stage, rules);
    let refused = [&["bad patch-wasmplugins"], &shares[..]].concat();
    wait_until(|| lacking() == refused, || format!("{:?}", lacking()));
}

#[test]
fn a_developer_without_rights_is_told_which_one_is_missing() {
    let stage = Stage::new("rights");
    stage.bind("mallory", "ClusterRole", "injector-developer");
    let refused = stage.run("mallory", &["intercept", "orders", "--port=1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("you may not get pods/portforward injector-relay-0 in injector-system"),
        "{refused:?}"
    );
    assert_eq!(
        stage.plugin()["spec"]["pluginConfig"].get("intercepts"),
        None
    );
}

#[test]
fn a_developer_who_may_not_read_envoy_filters_is_told_that_it_takes_that() {
    let stage = Stage::new("unread");
    let rules = json!([
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list", "patch"]},
    ]);
    allow(&stage, rules);
    for words in [
        &["intercept", "orders", "--port=1", "--http-header=Coder=Eve"][..],
        &["explain", "orders", "/"],
    ] {
        let refused = stage.run("eve", words);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for expected in ["envoyfilters", "\n\nhint: "] {
            assert!(refused.stderr.contains(expected), "{refused:?}");
        }
    }
    assert_eq!(
        stage.plugin()["spec"]["pluginConfig"].get("intercepts"),
        None
    );
}

#[test]
fn an_operator_of_one_namespace_intercepts_there() {
    let stage = Stage::new("olgas");
    let role = "injector-operator";
    stage.bind("olga", "ClusterRole", role);
    let beside_relays = rbac::binding("injector-system", "olga", "Role", role);
    stage.server.apply_all(&[beside_relays]);
    let olga = stage.live("olga");
    assert_eq!(stage.clusters(), ["intercept-orders-olga"]);
    olga.signal(Signal::INT);
    assert_eq!(olga.end().code, Some(0));
    assert_eq!(stage.clusters(), [""; 0]);
    assert_eq!(stage.entry("orders-olga"), None);
}

/// The EnvoyFilter of bob's intercept `mine`, as the command writes it.
fn cluster_of_bob(stage: &Stage) -> Value {
    let target = stage.target("bob");
    let objects = target.objects("mine", &entry("mine", "bob", "Bob"), 0);
    objects.expect("rendered").swap_remove(0)
}

/// What the API server says to bob, who applies this.
fn applied_by_bob(stage: &Stage, object: &Value) -> Result<(), String> {
    let bob = stage.cluster("bob");
    let manager = field_manager("mine");
    let applied = stage.wait(bob.apply(object, &manager, Apply::default()));
    applied.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_developers_cluster_is_one_that_can_be_found_again_and_deleted() {
    let stage = Stage::new("found");
    let object = cluster_of_bob(&stage);
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]);
    let unbound = "may not change an EnvoyFilter's finalizers or owners";
    let found = "expected the annotations injector.dev/workload=KIND/NAME";
    let ours = "may write only EnvoyFilters `intercept-NAME` with the labels";
    let cases = [
        ("", "finalizers", json!(["a/b"]), unbound),
        ("", "ownerReferences", owner, unbound),
        ("/labels", names::PART_OF, Value::Null, ours),
        ("/labels", names::PART_OF, json!("another"), ours),
        ("/annotations", names::WORKLOAD, Value::Null, found),
        ("/annotations", names::WORKLOAD, json!("orders"), found),
        ("/annotations", names::WORKLOAD, json!("Job/orders"), found),
        ("/annotations", names::WORKLOAD, json!("Deployment/"), found),
        ("/annotations", names::EXPIRES, Value::Null, found),
        ("/annotations", names::EXPIRES, json!("never"), found),
    ];
    // Before it is there, and as a change of it.
    for _ in 0..2 {
        for (map, key, value, reason) in &cases {
            let mut changed = object.clone();
            let map = changed.pointer_mut(&format!("/metadata{map}"));
            let map = map.and_then(Value::as_object_mut).expect("a map");
            match value {
                Value::Null => drop(map.remove(*key)),
                value => drop(map.insert((*key).to_owned(), value.clone())),
            }
            let refused = applied_by_bob(&stage, &changed).expect_err(key);
            assert!(refused.contains(reason), "{key}: {value}: {refused}");
        }
        applied_by_bob(&stage, &object).expect("as the command writes it");
    }
}

#[test]
fn what_an_administrator_hangs_on_a_developers_cluster_stays_and_keeps_no_renewal() {
    let stage = Stage::new("hung");
    let mut object = cluster_of_bob(&stage);
    applied_by_bob(&stage, &object).expect("as the command writes it");
    let patch = |finalizers: &str| {
        let of = ["-n", "hung", "patch", "envoyfilter", "intercept-mine"];
        let patch = format!(r#"{{"metadata": {{"finalizers": {finalizers}}}}}"#);
        let arguments = [&of[..], &["--type=merge", "-p", &patch]].concat();
        stage.server.must(&arguments, None);
    };
    patch(r#"["a/b"]"#);
    object["metadata"]["annotations"][names::EXPIRES] = json!("7");
    applied_by_bob(&stage, &object).expect("renewed");
    let there = stage.server.get("hung", "envoyfilter", "intercept-mine");
    assert_eq!(there["metadata"]["finalizers"], json!(["a/b"]));
    patch("[]");
}

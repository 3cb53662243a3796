//! Developers who lack rights, and operators who intercept.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::rbac;
use super::stage::Stage;
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
fn doctor_asks_for_the_rights_an_intercept_takes() {
    let stage = Stage::new("named");
    let mut rules = json!([
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list"]},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["get", "list"]},
        {"apiGroups": ["injector.dev"], "resources": ["intercepts"], "verbs": ["get", "list", "create", "patch", "delete"]},
    ]);
    let lacking = || {
        let told = stage.run("eve", &["doctor", "orders", "-o", "json"]);
        let told: Vec<Value> = serde_json::from_str(&told.stdout).expect("JSON");
        let rights = told.iter().filter_map(|check| {
            let id = check["id"].as_str()?.strip_prefix("right-")?;
            let is_good = check["outcome"] == "pass";
            (!is_good).then(|| format!("{} {id}", check["outcome"]).replace('"', ""))
        });
        rights.collect::<Vec<_>>()
    };
    allow(&stage, rules.clone());
    assert_eq!(lacking(), [""; 0]);
    let eve = stage.start(
        "eve",
        &["intercept", "orders", "--port=1", "--http-header=Coder=Eve"],
    );
    eve.is_live();
    eve.signal(Signal::INT);
    assert_eq!(eve.end().code, Some(0));
    rules[3]["verbs"] = json!(["get", "list", "create", "delete"]);
    allow(&stage, rules);
    let refused = ["fail patch-intercepts"];
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
    assert_eq!(stage.intercepts(), [""; 0]);
}

#[test]
fn an_operator_of_one_namespace_intercepts_there() {
    let stage = Stage::new("olgas");
    let role = "injector-operator";
    stage.bind("olga", "ClusterRole", role);
    let beside_relays = rbac::binding("injector-system", "olga", "Role", role);
    stage.server.apply_all(&[beside_relays]);
    let olga = stage.live("olga");
    assert_eq!(stage.intercepts(), ["orders-olga"]);
    olga.signal(Signal::INT);
    assert_eq!(olga.end().code, Some(0));
    assert_eq!(stage.intercepts(), [""; 0]);
}

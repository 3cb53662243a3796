//! Developers who lack rights, and operators who intercept.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::rbac;
use super::stage::Stage;

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

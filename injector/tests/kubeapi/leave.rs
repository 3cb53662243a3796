//! `injector leave`: own intercepts, those of other users, and expired ones.

use serde_json::{Value, json};

use super::controller::{intercept, with};
use super::stage::Stage;
use super::support::Running;

#[test]
fn leave_removes_others_by_force_and_right_only() {
    let stage = Stage::new("leaving");
    for name in ["bob-one", "bob-two"] {
        stage.add(name, "bob", name);
    }
    let refused = stage.run("alice", &["leave", "bob-one"]);
    let why = "bob-one: claimed by bob, not by alice";
    assert!(refused.stderr.contains(why), "{refused:?}");
    // The admission policy holds a developer who says --force.
    let forced = stage.run("alice", &["leave", "--force", "bob-one"]);
    assert_eq!(forced.code, Some(1), "{forced:?}");
    assert!(
        forced.stderr.contains("it belongs to another user"),
        "{forced:?}"
    );
    let operator = stage.run("admin", &["leave", "--force", "bob-one"]);
    assert_eq!(operator.stdout, "bob-one removed\n", "{operator:?}");
    assert_eq!(stage.entry("bob-one"), None);
    let mine = stage.run("bob", &["leave", "--all"]);
    assert_eq!(mine.stdout, "bob-two removed\n", "{mine:?}");
    assert_eq!(stage.intercepts(), [""; 0]);
}

/// Its command ends, and says why.
fn assert_lost(bob: Running, what: &str) {
    let end = bob.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    let told = format!("orders-bob: {what}; it is not brought back");
    assert!(end.stderr.contains(&told), "{end:?}");
}

#[test]
fn lost_intercept_ends_its_command() {
    let stage = Stage::new("told");
    for end in [
        &["leave", "--force", "orders-bob"][..],
        &["uninstall", "--workload=orders", "--force"],
    ] {
        let bob = stage.live("bob");
        let done = stage.run("admin", end);
        assert_eq!(done.code, Some(0), "{done:?}");
        let end = bob.end();
        assert_eq!(end.code, Some(1), "{end:?}");
        let whys = [
            "orders-bob: this intercept was removed; it is not brought back",
            "deployment/orders is no longer prepared for intercepts",
        ];
        assert!(whys.iter().any(|why| end.stderr.contains(why)), "{end:?}");
    }
}

#[test]
fn intercept_deleted_by_kubectl_does_not_come_back() {
    let stage = Stage::new("removed");
    let bob = stage.live("bob");
    stage.delete("orders-bob");
    assert_lost(bob, "this intercept was removed");
    assert_eq!(stage.intercepts(), [""; 0]);
    assert_eq!(stage.entry("orders-bob"), None);
}

/// May read everywhere what intercepts consist of, and intercept in these two.
fn in_two_namespaces(user: &str, stages: [&Stage; 2]) {
    let name = format!("{user}-everywhere");
    let (group, read) = ("rbac.authorization.k8s.io", ["get", "list"]);
    let rules = json!([
        {"apiGroups": ["injector.dev"], "resources": ["intercepts"], "verbs": read},
        {"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": read},
    ]);
    let mut objects = vec![
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name}, "subjects": [{"apiGroup": group, "kind": "User", "name": user}]}),
    ];
    objects.extend(stages.iter().flat_map(|stage| stage.developer(user)));
    stages[0].server.apply_all(&objects);
}

#[test]
fn what_is_in_all_namespaces_is_listed_and_ones_own_of_it_left() {
    let stages = [Stage::new("here"), Stage::new("there")];
    let [here, there] = &stages;
    in_two_namespaces("dave", [here, there]);
    for (stage, name) in [(here, "dave-here"), (there, "dave-there")] {
        // No process keeps this entry: its tunnel is down.
        stage.add(name, "dave", name);
    }
    let shown = |words: &[&str]| -> Value {
        let ran = here.run("dave", &[words, &["-A", "-o", "json"]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    // Others are intercepting as well.
    let all = shown(&["list"]);
    let mine = all.as_array().expect("a list").iter();
    let mine = mine.filter(|shown| shown["developer"] == "dave");
    let mine: Vec<Value> = mine
        .map(|shown| json!([shown["name"], shown["namespace"], shown["tunnel"]]))
        .collect();
    let expected = [
        json!(["dave-here", "here", "away"]),
        json!(["dave-there", "there", "away"]),
    ];
    assert_eq!(mine, expected);
    assert_eq!(shown(&["status", "dave-there"])["namespace"], "there");
    let text = here.run("dave", &["status", "-A", "dave-there"]).stdout;
    assert!(text.contains("\n  tunnel       away\n"), "{text}");

    // bob may read two namespaces, and not all.
    let refused = here.run("bob", &["list", "-A"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["intercepts.injector.dev is forbidden", "\n\nhint: "] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }

    let left = here.run("dave", &["leave", "--all", "-A"]);
    assert_eq!(
        (left.code, left.stdout.as_str()),
        (Some(0), "dave-here removed\ndave-there removed\n"),
        "{left:?}"
    );
    for (stage, name) in [(here, "dave-here"), (there, "dave-there")] {
        assert_eq!(stage.entry(name), None);
        assert_eq!(stage.intercepts(), [""; 0]);
    }
}

#[test]
fn with_everything_goes_every_envoy_filter_of_ours_whatever_it_lacks() {
    let stage = Stage::alone("everything");
    let filter = |name: &str, manager: &str| {
        let labels = json!({"app.kubernetes.io/managed-by": manager});
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"workloadSelector": {"labels": {"app": "orders"}}}})
    };
    let filters = [filter("stray", "injector"), filter("theirs", "them")];
    stage.server.apply_all(&filters);
    let removed = stage.run("admin", &["uninstall"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let arguments = ["get", "envoyfilters", "-A", "-o", "name"];
    let left = stage.server.must(&arguments, None);
    assert_eq!(left, "envoyfilter.networking.istio.io/theirs\n");
}

#[test]
fn shown_command_says_where_as_the_one_before() {
    let stage = Stage::new("elsewhere");
    stage.add("bobs", "bob", "Bob");
    let other = with(
        intercept("others", "bob"),
        "/spec/workload/name",
        json!("other"),
    );
    let kubeconfig = stage.kubeconfig("bob");
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().expect("a path")];
    stage
        .server
        .must(&[&kubeconfig[..], &["create"]].concat(), Some(&other));
    let hint_of = |user: &str, words: &[&str]| {
        let file = stage.server.kubeconfig(user, "default");
        let place = format!("--kubeconfig {} -n elsewhere", file.display());
        let flags: Vec<&str> = place.split(' ').collect();
        let refused = stage.run(user, &[words, &flags].concat());
        assert_eq!(refused.code, Some(1), "{words:?}: {refused:?}");
        let hint = refused.stderr.split_once("hint: ").expect("a hint").1;
        hint.trim_end().replace(&place, "PLACE")
    };
    let named = ["intercept", "orders", "--port=1", "--name"];
    for (user, words, expected) in [
        (
            "alice",
            &["leave", "bobs"][..],
            "ask them, or: injector leave PLACE --force bobs",
        ),
        ("alice", &["leave", "nobodys"], "injector list PLACE"),
        ("alice", &["status", "nobodys"], "injector list PLACE"),
        (
            "alice",
            &["logs", "nobodys"],
            "injector list PLACE; one in the foreground has its log on its own terminal, and -n or --context chooses another place",
        ),
        (
            "alice",
            &[&named[..], &["bobs"]].concat(),
            "injector intercept PLACE orders --name=ANOTHER-NAME",
        ),
        (
            "alice",
            &[&named[..], &["others"]].concat(),
            "choose another one with --name, or end it: injector leave PLACE others",
        ),
        (
            "admin",
            &["uninstall", "--workload=orders"],
            "injector leave PLACE --force bobs; or: injector uninstall PLACE … --force",
        ),
    ] {
        assert_eq!(hint_of(user, words), expected, "{words:?}");
    }
}
